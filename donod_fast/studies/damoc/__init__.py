"""DaMoC (arXiv 2509.01221), as we read the paper: choose which of several models to fine-tune, using little data."""
