"""Who runs the scoring of a corpus: this process, a process for each device, or a Ray cluster."""
