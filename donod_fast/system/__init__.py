"""Files, object stores, locks, memory, threads and clocks: what the operating system offers, without the domain."""
