"""DaMoC (arXiv 2509.01221), as we read the paper: find out on little data which of several models to fine-tune."""
