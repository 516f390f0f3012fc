"""The state of each task of the array that scores a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from donod_fast.errors import InputError
from donod_fast.scores.array_tasks import ArrayTask, owners
from donod_fast.scores.task_marks import FAILED, RUNNING, TaskMark, read_marks
from donod_fast.system.task_locks import live_tasks

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

MISSING = "missing"
_KILLED = "it ended without a word: it was killed, or its machine was lost"


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task.

    Attributes:
        index: its number.
        state: ``"done"`` (all its parts are committed), ``"running"``, ``"failed"`` or ``"missing"`` (never started, or
            ended before parts of it were lost).
        parts: number of its parts.
        left: those of them that are not committed.
        why: the reason of a failed one.
        host: the machine that it ran on last, "" if it never ran.
        job: how the scheduler named it, "" if unknown.
        time: when it started or ended, in seconds since 1970; 0 if it never ran.
    """

    index: int
    state: str
    parts: int
    left: tuple[int, ...]
    why: str = ""
    host: str = ""
    job: str = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class ArrayState:
    """All tasks of an array.

    Attributes:
        count: number of tasks.
        tasks: their states, in the order of their numbers.
    """

    count: int
    tasks: tuple[TaskState, ...]

    @property
    def to_submit(self) -> tuple[int, ...]:
        """Numbers of the tasks that have parts left and do not run."""
        return tuple(task.index for task in self.tasks if task.left and task.state != RUNNING)


def array_state(folder: ScoresFolder, missing: Collection[int], count: int | None = None) -> ArrayState | None:
    """The tasks of the newest array of a folder, or of one of ``count`` tasks; None if there was no array.

    Args:
        folder: the folder.
        missing: its parts that are not committed.
        count: number of tasks; None for that of the newest array.

    Raises:
        InputError: there is no array of ``count`` tasks.
    """
    marks = read_marks(folder.storage)
    live = {ArrayTask(size, index) for index, size in live_tasks(folder.storage) if index < size}
    if count is None:
        sizes = {task.count for task in live} or {task.count for task in marks}
        if not sizes:
            return None
        count = min(sizes)
    ArrayTask(count, 0)  # refuses a wrong number
    owner = owners(folder.plan, count)
    total = np.bincount(owner, minlength=count).tolist()
    left: dict[int, list[int]] = {}
    for part in sorted(missing):
        left.setdefault(int(owner[part]), []).append(part)
    return ArrayState(
        count,
        tuple(
            _state(task, total[index], tuple(left.get(index, ())), marks.get(task), is_live=task in live)
            for index, task in ((index, ArrayTask(count, index)) for index in range(count))
        ),
    )


def _state(task: ArrayTask, parts: int, left: tuple[int, ...], mark: TaskMark | None, *, is_live: bool) -> TaskState:
    about = ("", "", 0.0) if mark is None else (mark.host, mark.job, mark.time)
    if is_live:
        return TaskState(task.index, RUNNING, parts, left, "", *about)
    if not left:
        return TaskState(task.index, "done", parts, left, "", *about)
    if mark is not None and mark.state in (FAILED, RUNNING):
        why = mark.why if mark.state == FAILED else _KILLED
        return TaskState(task.index, FAILED, parts, left, why, *about)
    return TaskState(task.index, MISSING, parts, left, "", *about)


def ranges(numbers: Collection[int]) -> str:
    """Numbers as schedulers write them: ``"0-2,7"``."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in _runs(sorted(numbers)))


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    if not numbers:
        return
    first = numbers[0]
    for before, number in pairwise(numbers):
        if number != before + 1:
            yield first, before
            first = number
    yield first, numbers[-1]


def submission(count: int, numbers: Collection[int]) -> str:
    """Options of ``sbatch`` that submit some tasks of an array of ``count`` again.

    Raises:
        InputError: there is none.
    """
    if not numbers:
        raise InputError("no task is left to submit")
    return f"--array={ranges(numbers)} --export=ALL,DONOD_FAST_TASKS={count}"


__all__ = ["MISSING", "ArrayState", "TaskState", "array_state", "ranges", "submission"]
