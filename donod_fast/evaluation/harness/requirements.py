"""Packages of the extra ``benchmarks``, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from donod_fast.errors import InputError


def imported(module: str, package: str) -> Any:
    """A module of an optional package.

    Raises:
        InputError: the package cannot be imported; the message names the extra that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"the benchmarks agieval and ifeval need {package}, which cannot be imported ({error}): "
            "pip install 'donod-fast[benchmarks]'"
        ) from error


__all__ = ["imported"]
