"""Wall time that a sandboxed process may take to answer, without the time for which other load kept it waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from donod_fast.evaluation.judging.load import Load
from donod_fast.evaluation.sandbox import Process, Timeout

_LOOKS = 8  # at the machine's load, in the time of one answer
_SHORTEST, _LONGEST = 0.05, 1.0  # seconds between two looks
_LAST_CHANCE = 0.05  # seconds, once: this thread itself may have come too late to the answer
_BUSY = 16.0  # seconds of waiting per second of processor time: a machine with so many times more work than processors
_IDLE = 0.25  # of the time allowed, for a process that hardly runs: it waits whenever it wakes up, as often as it likes

_T = TypeVar("_T")


class Clock:
    """The clock of one process; it runs between :meth:`start` and :meth:`stop`.

    Args:
        process: the process.
        seconds: wall time that it may take in all.
        processor: seconds of processor time after which no more waiting is taken off.

    Attributes:
        sure: False if the process met the limit on wall time, and the machine does not tell whether load is the reason.
    """

    def __init__(self, process: Process, seconds: float, processor: float) -> None:
        self._process = process
        self._left = seconds
        self._processor = processor
        self._idle = _IDLE * seconds
        self._given = 0.0
        self._load = Load(process)
        self._last_chance = True
        self._started = self._deadline = time.monotonic()
        self.sure = True

    def start(self, each: float | None = None) -> float:
        """Begin to count; returns the seconds allowed: ``each`` at most, or what is left."""
        allowed = self._left if each is None else min(each, self._left)
        self._started = time.monotonic()
        self._deadline = self._started + allowed
        self._between = min(max(allowed / _LOOKS, _SHORTEST), _LONGEST)
        return allowed

    def stop(self) -> None:
        """Stop counting."""
        self._left -= time.monotonic() - self._started

    def send(self, data: bytes) -> None:
        """Send a frame to the process.

        Raises:
            Timeout: it did not read the frame in time.
            Ended: it has ended.
        """
        try:
            self._process.send(data, self._next_look())
        except Timeout:
            self._patiently(self._process.send_rest)

    def receive(self, max_bytes: int) -> bytes:
        """Receive a frame from the process.

        Raises:
            Timeout: it sent none in time.
            Ended, TooLarge: see :meth:`Process.receive`.
        """
        try:
            return self._process.receive(self._next_look(), max_bytes)
        except Timeout:
            return self._patiently(lambda deadline: self._process.receive(deadline, max_bytes))

    def _next_look(self) -> float:
        return min(self._deadline, time.monotonic() + self._between)

    def _patiently(self, action: Callable[[float], _T]) -> _T:
        """Repeat an action that has timed out, until the time without waiting is over."""
        while True:
            self._take_off_waiting()
            if time.monotonic() >= self._deadline:
                if not self._last_chance:
                    self.sure = self._load.known
                    raise Timeout("no answer in time")
                self._last_chance = False
                self._deadline = time.monotonic() + _LAST_CHANCE
            with suppress(Timeout):
                return action(self._next_look())

    def _take_off_waiting(self) -> None:
        waited = self._load.waited()
        if self._load.ran < self._processor:
            waited = max(0.0, min(waited, self._idle + _BUSY * self._load.ran - self._given))
            self._given += waited
            self._left += waited
            self._deadline += waited


def longest(seconds: float, processor: float) -> float:
    """Wall time that a clock can show at most, however busy the machine is."""
    return seconds * (1 + _IDLE) + _BUSY * processor
