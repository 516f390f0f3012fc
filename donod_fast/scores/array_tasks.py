"""One task of an array of processes that score one folder: its number, and which parts of a plan are its own."""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from donod_fast.data.shards import ShardPlan

MOST_TASKS = 100_000
"""Most tasks of an array."""


@dataclass(frozen=True, slots=True, order=True)
class ArrayTask:
    """Task ``index`` of ``count``.

    Which parts are its own depends only on the plan and on these two numbers. So no task needs to know of another, and
    a task that is run again has the same parts.

    Attributes:
        count: number of tasks of the array.
        index: number of this one, from 0.

    Raises:
        InputError: there is no such task.
    """

    count: int
    index: int

    def __post_init__(self) -> None:
        for name, value in (("number", self.index), ("count", self.count)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"--shard I/N: the {name} must be a whole number, got {value!r}")
        if not 1 <= self.count <= MOST_TASKS:
            raise InputError(
                f"--shard {self}: the array must have 1 to {MOST_TASKS:,} tasks, got {self.count}; write I/N, as 0/8"
            )
        if not 0 <= self.index < self.count:
            raise InputError(
                f"--shard {self}: tasks are numbered from 0, so with {self.count} tasks the number must be 0 to "
                f"{self.count - 1}, got {self.index}"
            )

    @staticmethod
    def parse(text: str) -> ArrayTask:
        """Read ``"I/N"``, for example ``"0/8"`` to ``"7/8"``.

        Raises:
            InputError: it has another form, or there is no such task.
        """
        found = re.fullmatch(r"\s*([+-]?[0-9]{1,12})\s*/\s*([+-]?[0-9]{1,12})\s*", text)
        if found is None:
            raise InputError(f"--shard {text!r}: write the task's number, from 0, and the number of tasks, as 0/8")
        return ArrayTask(int(found[2]), int(found[1]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def parts(self, plan: ShardPlan) -> tuple[int, ...]:
        """The numbers of its parts, in rising order; empty if there are more tasks than parts to divide."""
        return tuple(np.flatnonzero(owners(plan, self.count) == self.index).tolist())


def owners(plan: ShardPlan, count: int) -> Any:
    """(parts,) int64: the number of the task that each part belongs to.

    The parts of one run (a compressed file, for example) belong to one task. Otherwise the largest part that is left
    goes to the task with the least work so far, the one with the lower number if they are equal. Work is counted in
    bytes if the plan knows those of every part, else in rows. Equal parts are dealt out in turn, so that each task gets
    some of every stretch of the corpus.
    """
    sizes = plan.sizes()
    units = plan.tasks(range(len(plan)), 1)
    work = np.array([int(sizes[list(unit)].sum()) for unit in units], np.int64)
    found = np.zeros(len(plan), np.int64)
    loads = [(0, index) for index in range(count)]
    for at in np.argsort(-work, kind="stable").tolist():
        load, index = loads[0]
        found[list(units[at])] = index
        heapq.heapreplace(loads, (load + int(work[at]), index))
    return found


__all__ = ["MOST_TASKS", "ArrayTask", "owners"]
