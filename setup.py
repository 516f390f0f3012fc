"""Packages and folders only; everything else is in pyproject.toml.

``kernels/`` and ``recipes/`` are top-level folders of the repository and are installed as ``donod_fast.kernels`` and
``donod_fast.recipes``. pyproject.toml cannot search for packages below a mapped folder, so setup.py does.
"""

from setuptools import find_packages, setup

FOLDERS = {"donod_fast": "donod_fast", "donod_fast.kernels": "kernels", "donod_fast.recipes": "recipes"}


def packages() -> list[str]:
    """Names of all packages below the mapped folders."""
    names = list(FOLDERS)
    for root, folder in FOLDERS.items():
        names += [f"{root}.{name}" for name in find_packages(folder)]
    return names


setup(packages=packages(), package_dir=FOLDERS)
