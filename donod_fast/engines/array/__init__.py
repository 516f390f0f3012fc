"""Tasks of a job array: which task this process is, how it holds the folder, and what the last one does."""
