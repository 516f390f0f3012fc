"""The ledger of a run on a cluster: which worker has which task, when it last reported, and what is done.

It is a small actor on the driver's machine. Ray repeats the task of a lost worker without limit, and also counts
attempts that never reached a worker. The ledger counts only attempts that began, so that a task that no worker survives
is given up. It also shows which workers hang: they do not report.

This module does not depend on Ray. Use it from one thread at a time, as an actor is used.
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
    """A task that a worker holds."""

    where: str
    worker: Any
    heard: float
    rows: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A task in progress.

    Attributes:
        task: its number.
        attempt: which one this is, from 1.
        where: the node of its worker.
        silent: seconds since the worker's last report.
    """

    task: int
    attempt: int
    where: str
    silent: float


@dataclass(frozen=True, slots=True)
class News:
    """What the driver asks for regularly.

    Attributes:
        rows: scored so far. The number falls if a worker is lost with rows that were not committed.
        tokens: scored so far, including those of lost workers.
        losses: attempts that were lost since the last call: task and node.
        held: tasks in progress.
        silent: seconds since the last report of any worker.
        strikes: attempts lost in a row, without a committed part of any worker in between.
    """

    rows: int
    tokens: int
    losses: tuple[tuple[int, str], ...]
    held: tuple[Held, ...]
    silent: float
    strikes: int


class Ledger:
    """Records the attempts of a run; see the module.

    Args:
        clock: returns seconds; tests pass their own.
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
        """A worker asks to begin a task.

        Args:
            task: its number.
            where: its node.
            worker: a handle by which it can be killed.

        Returns:
            None if it may begin; else the reason why not.
        """
        self._heard = self._clock()
        if self._is_stopped:
            return "the run was ended"
        lost = self._attempts.pop(task, None)  # a worker that ends normally calls end()
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
        """A worker reports that it is alive.

        Args:
            task: the task that it works on.
            rows: rows of the task that are done, in all.
            tokens: tokens that were scored in this attempt.
            has_committed: whether a part of it was committed in this attempt.

        Returns:
            whether it should stop.
        """
        self._heard = self._clock()
        attempt = self._attempts.get(task)
        if attempt is not None:
            attempt.heard, attempt.rows, attempt.tokens = self._heard, rows, tokens
        if has_committed:
            self._strikes = self._fruitless[task] = 0
        return self._is_stopped

    def end(self, task: int, rows: int, tokens: int, *, has_committed: bool) -> None:
        """A worker has finished a task; arguments as for :meth:`sign`."""
        self.sign(task, rows, tokens, has_committed=has_committed)
        if self._attempts.pop(task, None) is not None:
            self._rows += rows
            self._tokens += tokens
            self._begun.pop(task)
            self._fruitless.pop(task)

    def news(self) -> News:
        """The state of the run."""
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
        """The handle of the worker that has a task; None if no worker has it."""
        attempt = self._attempts.get(task)
        return None if attempt is None else attempt.worker

    def workers(self) -> list[Any]:
        """The handles of all workers that have a task."""
        return [attempt.worker for attempt in self._attempts.values()]

    def stop(self) -> None:
        """Let no worker begin a task, and tell the others to stop at their next report."""
        self._is_stopped = True


__all__ = ["Held", "Ledger", "News"]
