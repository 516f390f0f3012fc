"""Triton kernels for the output layer: ``op.py`` is the entry point, ``run.py`` runs a batch through the kernels."""
