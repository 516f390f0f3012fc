"""Who runs the scoring of a corpus: this process, a process for each device, a Ray cluster, or an array."""
