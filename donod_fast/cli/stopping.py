"""A task of a job array that its scheduler stops ends with an error, so that its mark says why."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from donod_fast.cli.errors import Terminated


@contextmanager
def terminated_by_signal(*, in_array: bool) -> Iterator[None]:
    """Raise :class:`Terminated` where SIGTERM arrives, in the main thread of a task of an array.

    Schedulers send it before a time limit, at a preemption and when a job is cancelled.
    """
    if not in_array or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(
            "stopped by SIGTERM (its time limit, a preemption or a cancellation); what is committed stays, and the "
            "same command resumes"
        )

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["terminated_by_signal"]
