"""Import of a host's package, with a message that names the extra if it is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from donod_fast.errors import InputError


def host_module(name: str, extra: str) -> Any:
    """Import a module of a host.

    Args:
        name: full name of the module.
        extra: the extra of this package that installs the host.

    Raises:
        InputError: it cannot be imported; names the extra and the cause.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f'{name} cannot be imported ({error}); install it with: pip install "donod-fast[{extra}]"'
        ) from error


__all__ = ["host_module"]
