"""DaMoC (arXiv 2509.01221): which of several models to fine-tune, found on little data; our reading of the paper."""
