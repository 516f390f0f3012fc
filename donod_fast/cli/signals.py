"""Signals that end a command: all are answered like Ctrl-C, so that what is temporary is removed and children end."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
SAME_WISH_SECONDS = 1.0
"""A signal so soon after another one says the same: it must not interrupt the cleaning up."""


class Stopper:
    """Turns signals into KeyboardInterrupt in the main thread.

    Attributes:
        received: number of the first signal; None if there was none.
        leaving: whether the command's work is over: what happens at exit is not interrupted, but a second signal in
            that time ends the process at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.leaving = False
        self._last: float | None = None
        self._late = 0

    def install(self) -> None:
        """Answer the signals from now on; those that the caller ignores (``nohup``) stay ignored."""
        for name in _ENDING:
            number = getattr(signal, name, None)
            if number is None:
                continue
            try:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._answer)
            except ValueError:  # not in the main thread
                return

    def code(self, code: int) -> int:
        """The exit code of a command that ends with ``code``: 128 + the signal's number if a signal ended it.

        Libraries turn the KeyboardInterrupt into errors of their own, so any error after a signal counts as its.
        """
        return 128 + self.received if self.received is not None and code else code

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self.leaving:
            self._late += 1
            if self._late > 1:
                os._exit(128 + number)
            return
        now, before = time.monotonic(), self._last
        self._last = now
        if self.received is None:
            self.received = number
        elif before is not None and now - before < SAME_WISH_SECONDS:
            return
        raise KeyboardInterrupt


__all__ = ["SAME_WISH_SECONDS", "Stopper"]
