"""The ledger of a run on a cluster: who began which task, who has given a sign of life, who is done.

It is one small actor beside the driver. Ray repeats the task of a lost worker for ever, and counts attempts that never
came to a worker; here only those that began are counted, so that a task which no worker survives comes to an end. And
here a worker that hangs shows: it is silent.

This module knows nothing of Ray, and may be used from one thread at a time, as an actor is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from donod_fast.engines.isolation import MOST_TRIES


@dataclass(slots=True)
class _Attempt:
    """A task that a worker has."""

    where: str
    worker: Any
    heard: float
    rows: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A task that is in work.

    Attributes:
        task: its number.
        attempt: which one this is, from 1.
        where: the node of its worker.
        silent: seconds since the worker's last sign of life.
    """

    task: int
    attempt: int
    where: str
    silent: float


@dataclass(frozen=True, slots=True)
class News:
    """What a driver wants to know now and then.

    Attributes:
        rows: done so far. It goes down where a worker is lost with rows that were not committed.
        tokens: done so far, those of lost workers included.
        losses: attempts that were lost, told once: task, and the node.
        held: tasks in work.
        silent: seconds since the last sign of life of any worker.
        strikes: attempts lost in a row, without a part done by anybody in between.
    """

    rows: int
    tokens: int
    losses: tuple[tuple[int, str], ...]
    held: tuple[Held, ...]
    silent: float
    strikes: int


class Ledger:
    """See the head of the module.

    Args:
        clock: gives seconds; another one for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempts: dict[int, _Attempt] = {}
        self._begun: Counter[int] = Counter()  # attempts of each task
        self._fruitless: Counter[int] = Counter()  # of these, in a row without a part done
        self._losses: list[tuple[int, str]] = []
        self._rows = self._tokens = self._strikes = 0
        self._is_stopped = False
        self._heard = clock()

    def begin(self, task: int, where: str, worker: Any) -> str | None:
        """A worker is about to begin with a task.

        Args:
            task: its number.
            where: its node.
            worker: a handle by which it can be killed.

        Returns:
            None if it is to go on; else why not.
        """
        self._heard = self._clock()
        if self._is_stopped:
            return "the run was ended"
        lost = self._attempts.pop(task, None)  # a worker that ends in order says so
        if lost is not None:
            self._losses.append((task, lost.where))
            self._strikes += 1
            self._tokens += lost.tokens
        if self._fruitless[task] == MOST_TRIES:
            return f"{MOST_TRIES} workers were lost there, the last one on {where if lost is None else lost.where}"
        self._begun[task] += 1
        self._fruitless[task] += 1
        self._attempts[task] = _Attempt(where, worker, self._heard)
        return None

    def sign(self, task: int, rows: int, tokens: int, *, has_committed: bool) -> bool:
        """A worker lives.

        Args:
            task: what it is at.
            rows: of it that are done, in all.
            tokens: that were scored in this attempt.
            has_committed: whether a part of it was committed in this attempt.

        Returns:
            whether it is to stop.
        """
        self._heard = self._clock()
        attempt = self._attempts.get(task)
        if attempt is not None:
            attempt.heard, attempt.rows, attempt.tokens = self._heard, rows, tokens
        if has_committed:
            self._strikes = self._fruitless[task] = 0
        return self._is_stopped

    def end(self, task: int, rows: int, tokens: int, *, has_committed: bool) -> None:
        """A worker is done with a task; arguments as for :meth:`sign`."""
        self.sign(task, rows, tokens, has_committed=has_committed)
        if self._attempts.pop(task, None) is not None:
            self._rows += rows
            self._tokens += tokens
            self._begun.pop(task)
            self._fruitless.pop(task)

    def news(self) -> News:
        """What there is to know."""
        now = self._clock()
        losses, self._losses = tuple(self._losses), []
        return News(
            rows=self._rows + sum(attempt.rows for attempt in self._attempts.values()),
            tokens=self._tokens + sum(attempt.tokens for attempt in self._attempts.values()),
            losses=losses,
            held=tuple(
                Held(task, self._begun[task], attempt.where, now - attempt.heard)
                for task, attempt in sorted(self._attempts.items())
            ),
            silent=now - self._heard,
            strikes=self._strikes,
        )

    def worker(self, task: int) -> Any:
        """The handle of the worker that has a task; None where nobody has it."""
        attempt = self._attempts.get(task)
        return None if attempt is None else attempt.worker

    def workers(self) -> list[Any]:
        """The handles of all workers that have a task."""
        return [attempt.worker for attempt in self._attempts.values()]

    def stop(self) -> None:
        """Let nobody begin any more, and tell those who are at work."""
        self._is_stopped = True


__all__ = ["Held", "Ledger", "News"]
