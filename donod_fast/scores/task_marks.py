"""How the tasks of an array are doing: each has a small file in the folder, which it writes when it starts and ends."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.confidential import without_secrets
from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.system.checked_json import DamagedError, parsed_object, with_checksum
from donod_fast.system.storage import Storage

TASK_MARKS = "task-*.json"
RUNNING, FAILED, DONE = "running", "failed", "done"

_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class TaskMark:
    """What a task last wrote about itself.

    Attributes:
        task: which one.
        state: ``"running"``, ``"failed"`` or ``"done"``.
        why: the error of a failed one, else "".
        host: the machine it ran on.
        process: its process number there.
        job: how its scheduler names it, "" if unknown.
        time: when it wrote this, in seconds since 1970.
    """

    task: ArrayTask
    state: str
    why: str
    host: str
    process: int
    job: str
    time: float


@contextmanager
def marked(storage: Storage, task: ArrayTask, job: str = "") -> Iterator[None]:
    """Mark a task as running, and as done or failed at the end. The caller holds its lock.

    A task that is refused because its settings are not those of the folder leaves no mark: it may belong to another
    array.

    Raises:
        StoreError: the folder cannot be written.
    """
    storage.make()
    before = _content(storage, task)
    _write(storage, task, RUNNING, "", job)
    try:
        yield
    except (SettingsMismatchError, InputError):
        if before is None:
            storage.remove(_name(task))
        else:
            storage.write(_name(task), before)
        raise
    except BaseException as error:
        _write(storage, task, FAILED, _reason(error), job)
        raise
    _write(storage, task, DONE, "", job)


def read_marks(storage: Storage) -> dict[ArrayTask, TaskMark]:
    """The marks of the newest array of a folder; empty if there was none. Marks that cannot be read are left out."""
    found = {}
    for name in storage.names(TASK_MARKS):
        task = _task_of(name)
        mark = None if task is None else _read(storage, task)
        if mark is not None:
            found[mark.task] = mark
    if not found:
        return {}
    newest = max(found.values(), key=lambda mark: mark.time).task.count
    return {task: mark for task, mark in sorted(found.items()) if task.count == newest}


def remove_other_marks(storage: Storage, task: ArrayTask) -> None:
    """Remove marks of arrays of another size than that of a task. Raises StoreError."""
    for name in storage.names(TASK_MARKS):
        other = _task_of(name)
        if other is not None and other.count != task.count:
            storage.remove(name)


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted"
    return without_secrets(text)[:_LONGEST]


def _write(storage: Storage, task: ArrayTask, state: str, why: str, job: str) -> None:
    mark = TaskMark(task, state, why, socket.gethostname(), os.getpid(), job, time.time())
    storage.write(_name(task), json.dumps(with_checksum(asdict(mark)), indent=1).encode())


def _content(storage: Storage, task: ArrayTask) -> bytes | None:
    try:
        return storage.read(_name(task))
    except OSError:
        return None


def _read(storage: Storage, task: ArrayTask) -> TaskMark | None:
    content = _content(storage, task)
    try:
        plain: dict[str, Any] = parsed_object(content or b"", needs_checksum=True)
        return TaskMark(task, **{name: plain[name] for name in ("state", "why", "host", "process", "job", "time")})
    except (DamagedError, KeyError, StoreError):
        return None


def _name(task: ArrayTask) -> str:
    return f"task-{task.index}-of-{task.count}.json"


def _task_of(name: str) -> ArrayTask | None:
    found = re.fullmatch(r"task-([0-9]{1,9})-of-([0-9]{1,9})\.json", name)
    try:
        return None if found is None else ArrayTask(int(found[2]), int(found[1]))
    except InputError:
        return None


__all__ = ["DONE", "FAILED", "RUNNING", "TASK_MARKS", "TaskMark", "marked", "read_marks", "remove_other_marks"]
