"""Files, object stores, locks, memory, threads, profiling and wording: general services without domain knowledge."""
