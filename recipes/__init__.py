"""Packaged recipes (``*.yaml``), installed as ``donod_fast.recipes``; see :mod:`donod_fast.training.recipe_files`."""
