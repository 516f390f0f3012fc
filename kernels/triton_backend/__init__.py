"""The head mathematics in Triton kernels (``op.py`` is the door, ``run.py`` draws the way of a batch)."""
