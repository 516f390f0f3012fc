"""Calls whose tiles turn out not to fit a device: the first one is tried, later ones of the same kind are refused.

The shipped tiles are checked at compile time for the architectures of ``configs.ARCHITECTURES``. On another device, or
with another release of Triton, they may need more shared memory or registers than there are. Triton finds out at the
first launch and raises ``OutOfResources``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from triton.runtime.errors import OutOfResources

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_refused: dict[Hashable, str] = {}


def reason_for(kind: Callable[[], Hashable]) -> str | None:
    """Reason why calls of a kind do not fit the device, or None if none has failed so far (or while tracing)."""
    if torch.compiler.is_compiling() or not _refused:
        return None
    return _refused.get(kind())


def attempt(kind: Callable[[], Hashable], run: Callable[[], _Result]) -> _Result | None:
    """Return what ``run`` returns, or None if its tiles do not fit; ``reason_for`` gives the reason from then on.

    While ``torch.compile`` traces, nothing is launched and nothing is caught: the error of a compiled call propagates.
    """
    if torch.compiler.is_compiling():
        return run()
    try:
        return run()
    except OutOfResources as error:
        reason = (
            f"a kernel needs more than this device has of {error.name} "
            f"(required: {error.required}, limit: {error.limit})"
        )
        if reason not in _refused.values():
            _log.warning("the Triton kernels are not used for some calls, because %s", reason)
        _refused[kind()] = reason
        return None
