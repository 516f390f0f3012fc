"""Hold a scores folder for a run: all of it, or one task of an array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from donod_fast.engines.array.environment import job_name
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.scores.task_marks import marked
from donod_fast.system.locking import locked
from donod_fast.system.storage import open_storage
from donod_fast.system.task_locks import task_locked


@contextmanager
def holding(place: Path | str, task: ArrayTask | None) -> Iterator[None]:
    """Lock a folder, or a task of it, which is then marked as running, and at the end as done or failed.

    Raises:
        StoreError: another process holds it, or the folder cannot be written.
    """
    if task is None:
        with locked(place):
            yield
        return
    storage = open_storage(place)
    with task_locked(storage, (task.index, task.count)), marked(storage, task, job_name()):
        yield


__all__ = ["holding"]
