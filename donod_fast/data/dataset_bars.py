"""The progress bars of ``datasets``, hidden for the time of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden_bars() -> Iterator[None]:
    """Progress bars of ``datasets`` hidden: they go to standard error, terminal or not."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


__all__ = ["hidden_bars"]
