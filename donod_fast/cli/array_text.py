"""The tasks of an array as lines of ``donod-fast status``."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.array_status import ArrayState, TaskState

_SHOWN_TASKS = 20
_SHOWN_PARTS = 8


def array_lines(array: ArrayState) -> list[str]:
    """A line for the array, one for each task that is unfinished, and the options that submit them again."""
    from donod_fast.scores.array_status import submission

    counts = Counter(task.state for task in array.tasks)
    told = ", ".join(
        f"{counts[state]:,} {state}" for state in ("done", "running", "failed", "missing") if counts[state]
    )
    lines = [f"array    {plural(array.count, 'task')}: {told}"]
    unfinished = [task for task in array.tasks if task.left]
    lines += map(_line, unfinished[:_SHOWN_TASKS])
    if len(unfinished) > _SHOWN_TASKS:
        lines.append(f"  … and {len(unfinished) - _SHOWN_TASKS:,} more")
    if array.to_submit:
        lines.append(f"  submit again: {submission(array.count, array.to_submit)}")
    return lines


def _line(task: TaskState) -> str:
    parts = ", ".join(map(str, task.left[:_SHOWN_PARTS])) + (", …" if len(task.left) > _SHOWN_PARTS else "")
    line = f"  task {task.index}: {task.state}, {len(task.left):,} of {plural(task.parts, 'part')} left ({parts})"
    if task.time:
        when = datetime.fromtimestamp(task.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
        line += f"; {when} UTC on {task.host}" + (f" ({task.job})" if task.job else "")
    return line + (f": {task.why.splitlines()[0]}" if task.why else "")


__all__ = ["array_lines"]
