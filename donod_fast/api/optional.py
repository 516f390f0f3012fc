"""Packages that one method needs and that need not be installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from donod_fast.errors import InputError


def needed(package: str) -> Any:
    """Import a package.

    Raises:
        InputError: it is not installed; says how to install it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise InputError(f"{package} is not installed; install it with: pip install {package}") from error


__all__ = ["needed"]
