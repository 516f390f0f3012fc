"""Progress on standard error: a bar on a terminal, lines in a log file.

One display for every command that takes long. A log file has no cursor, so it gets a line whenever 5 % more is done
or 30 s have passed, and never a carriage return. If nothing is done for 30 s, the last line is repeated with the time
since the start of the step, so that a reader sees that the program still runs.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from donod_fast.system.wording import plural

LINE_SHARE = 0.05
"""A line is printed when this share of the whole has been done since the last line."""

LINE_SECONDS = 30.0
"""A line is printed when this many seconds have passed since the last line."""

_CHECK_SECONDS = 5.0
"""Seconds between two checks whether a line is due though nothing is done."""


class Display(Protocol):
    """Shows how far a step is. A command may have several steps, one after the other."""

    def begin(self, step: str, unit: str, total: int | None, done: int = 0) -> None:
        """Start a step.

        Args:
            step: the step's name, "" where the command has only one.
            unit: what is counted, in the singular: ``row``.
            total: total number, None if unknown.
            done: number that an earlier run has done; they do not count for the speed.
        """

    def reach(self, done: int, detail: str = "") -> None:
        """Report that ``done`` of the step's total are done; ``detail`` is shown next to it."""

    def close(self) -> None:
        """End the display."""


class _Bar:
    """A tqdm bar, a new one for each step."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, step: str, unit: str, total: int | None, done: int = 0) -> None:
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=step or None,
            unit=unit,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5,
            delay=0.5,
        )

    def reach(self, done: int, detail: str = "") -> None:
        self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Lines:
    """Lines of text, at most one for each 5 % or 30 s.

    Args:
        clock: monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step, self._unit = "", ""
        self._total: int | None = None
        self._first = self._shown = 0
        self._started = self._shown_at = 0.0
        self._silent = True
        self._now: tuple[int, str] | None = None  # done and detail, None before the first step
        self._lock = threading.Lock()

    def begin(self, step: str, unit: str, total: int | None, done: int = 0) -> None:
        """See :class:`Display`."""
        with self._lock:
            self._step, self._unit, self._total = step, unit, total
            self._first = self._shown = done
            self._started = self._shown_at = self._clock()
            self._silent = True
            self._now = done, ""

    def reach(self, done: int, detail: str = "") -> None:
        """See :class:`Display`."""
        with self._lock:
            self._now = done, detail
            if done == self._shown and not (self._silent and detail):  # report the first item when a step starts
                return
            now = self._clock()
            enough = self._total is not None and done - self._shown >= LINE_SHARE * self._total
            if not (enough or done in (self._first, self._total) or now - self._shown_at >= LINE_SECONDS):
                return
            self._shown, self._shown_at, self._silent = done, now, False
            print(self._line(done, now, detail), file=sys.stderr, flush=True)

    def repeat(self) -> None:
        """Print the last state with the time since the start of the step, if no line was printed for 30 s.

        It may be called in another thread.
        """
        with self._lock:
            now = self._clock()
            if self._now is None or self._now[0] == self._total or now - self._shown_at < LINE_SECONDS:
                return
            done, detail = self._now
            self._shown_at = now
            line = f"{self._line(done, now, detail)}, running for {duration(now - self._started)}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """See :class:`Display`."""

    def _line(self, done: int, now: float, detail: str) -> str:
        if self._total is None:
            parts = [plural(done, self._unit)]
        else:
            share = done / self._total if self._total else 1.0
            parts = [f"{done:,} of {plural(self._total, self._unit)} ({share:.0%})"]
        if detail:
            parts.append(detail)
        elapsed, new = now - self._started, done - self._first
        if self._total is not None and done < self._total and new > 0 and elapsed > 0:
            parts.append(f"about {duration(elapsed / new * (self._total - done))} left")
        return (f"{self._step}: " if self._step else "") + ", ".join(parts)


class _Nothing:
    """Shows no progress."""

    def begin(self, step: str, unit: str, total: int | None, done: int = 0) -> None:
        pass

    def reach(self, done: int, detail: str = "") -> None:
        pass

    def close(self) -> None:
        pass


def duration(seconds: float) -> str:
    """``75.0 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextmanager
def display(*, quiet: bool) -> Iterator[Display]:
    """The display that suits standard error: none if ``quiet``, a bar on a terminal, else lines."""
    if quiet:
        yield _Nothing()
    elif sys.stderr.isatty():
        bar = _Bar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        lines = Lines()
        with repeated(lines):
            yield lines


@contextmanager
def repeated(lines: Lines) -> Iterator[None]:
    """Call ``lines.repeat`` every few seconds, in a thread that ends with the context."""
    ended = threading.Event()

    def check() -> None:
        while not ended.wait(_CHECK_SECONDS):
            lines.repeat()

    thread = threading.Thread(target=check, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Steps(Protocol):
    """How studies and DaMoC report progress."""

    def __call__(self, step: str, done: int, total: int, detail: str) -> None:
        """``done`` of ``total`` in this step are done; ``detail`` names the current item."""


@contextmanager
def step_progress(units: dict[str, str], *, quiet: bool) -> Iterator[Steps | None]:
    """Progress of a run with several steps; None if ``quiet``.

    Args:
        units: what each step counts, in the singular, by the step's name.
        quiet: show nothing.
    """
    if quiet:
        yield None
        return
    with display(quiet=False) as shown:
        current = None

        def advance(step: str, done: int, total: int, detail: str) -> None:
            nonlocal current
            if (step, total) != current:
                shown.begin(step, units.get(step, "step"), total)
                current = (step, total)
            shown.reach(done, detail)

        yield advance


__all__ = ["Display", "Lines", "Steps", "display", "duration", "repeated", "step_progress"]
