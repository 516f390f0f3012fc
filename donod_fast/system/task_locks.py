"""Several processes in one folder: each task of an array has a lock of its own, and the folder's lock is shared.

On a disk a task holds the folder's lock in shared mode, so that the system itself keeps a process that wants the whole
folder apart from tasks; a file of its own keeps a second process of the same task out. On an object store both are lock
objects: each side writes its own and then looks for the other's, so that at least one of two sees the other.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from donod_fast.errors import StoreError
from donod_fast.system.files import storage_error
from donod_fast.system.lock_objects import InUse, described, held_object, holder, holder_facts, is_held
from donod_fast.system.storage import Storage, open_storage

# Windows has no shared file locks.
fcntl: Any = import_module("fcntl") if os.name == "posix" else None

LOCK = ".lock"
OPENING = ".opening.lock"
TASK_LOCKS = ".task-*.lock"

GLANCE_SECONDS = 0.5
"""Seconds to try for a lock: a process that looks whether it is held may hold it for a moment."""

Task = tuple[int, int]
"""Number of a task, and number of tasks."""


def task_lock_name(task: Task) -> str:
    """Name of the lock of a task."""
    return f".task-{task[0]}-of-{task[1]}.lock"


@contextmanager
def task_locked(place: Path | str | Storage, task: Task) -> Iterator[None]:
    """Lock a task of a folder for this process; the folder is created if it does not exist.

    Raises:
        StoreError: another process has the same task or the whole folder, or tasks of an array of another size are at
            work; or the folder cannot be written, or has no file locks.
    """
    storage = open_storage(place)
    hold = _task_objects(storage, task) if storage.local is None else _task_files(storage.local, task)
    with hold:
        others = sorted({count for _, count in live_tasks(storage)} - {task[1]})
        if others:
            raise StoreError(
                f"{storage.name} is in use: tasks of an array of {others[0]} score into it, and this is task "
                f"{_name(task)}; wait for them to end, or submit --shard I/{others[0]}"
            )
        yield


def live_tasks(place: Path | str | Storage) -> dict[Task, str]:
    """The tasks that processes hold now, each with the words for its holder."""
    storage = open_storage(place)
    found = {}
    for name in storage.names(TASK_LOCKS):
        task = _task_of(name)
        if task is None:
            continue
        if storage.local is None:
            if is_held(storage, name):
                found[task] = holder(storage, name)
        elif (who := _file_holder(storage.local / name)) is not None:
            found[task] = who
    return dict(sorted(found.items()))


def holders(place: Path | str | Storage) -> str | None:
    """The live tasks of a folder in words; None if there are none."""
    live = live_tasks(place)
    if not live:
        return None
    task, who = next(iter(live.items()))
    return f"task {_name(task)} ({who})" + (f" and {len(live) - 1} more of its array" if len(live) > 1 else "")


@contextmanager
def opening(place: Path | str | Storage) -> Iterator[None]:
    """Let one task at a time open or create a folder on a disk; the others wait for it.

    On an object store it does nothing: there a folder is created by one PUT that fails if another process was first.
    """
    storage = open_storage(place)
    if storage.local is None or fcntl is None:
        yield
        return
    with (storage.local / OPENING).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_task_locks(folder: Path) -> None:
    """Remove the lock files of tasks that have ended. The caller holds the whole folder."""
    for file in (*folder.glob(TASK_LOCKS), folder / OPENING):
        with suppress(OSError):
            file.unlink()


@contextmanager
def _task_files(folder: Path, task: Task) -> Iterator[None]:
    if fcntl is None:
        raise _no_locks(str(folder), "this system is Windows")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        whole = (folder / LOCK).open("a+b")
    except OSError as error:
        raise storage_error(folder, error) from error
    with whole:
        if not _acquired(whole, fcntl.LOCK_SH):
            raise StoreError(f"{folder} is in use: another process scores all of it; wait for it to end")
        try:
            own = (folder / task_lock_name(task)).open("a+b")
        except OSError as error:
            raise storage_error(folder, error) from error
        with own:
            if not _acquired(own, fcntl.LOCK_EX):
                raise StoreError(_same_task(str(folder), task, described(_content(own))))
            own.truncate(0)
            own.write(json.dumps(holder_facts()).encode())
            own.flush()
            try:
                yield
            finally:
                own.close()
                with suppress(OSError):  # the last one of an array leaves no lock files behind
                    fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_task_locks(folder)


def _acquired(file: IO[bytes], how: int) -> bool:
    """Acquire a file lock; False if another process holds it for longer than a glance.

    Raises:
        StoreError: the file system has no locks.
    """
    until = time.monotonic() + GLANCE_SECONDS
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        except OSError as error:
            raise _no_locks(str(Path(file.name).parent), str(error.strerror)) from error
        else:
            return True


def _no_locks(folder: str, why: str) -> StoreError:
    return StoreError(
        f"{folder}: tasks of an array need file locks, which are missing here ({why}); score into one folder for each "
        "task, and join them with `donod-fast merge`"
    )


def _file_holder(path: Path) -> str | None:
    """Who holds the lock file of a task; None if nobody does."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return described(_content(file))
    except OSError:
        pass
    return None


def _content(file: IO[bytes]) -> dict[str, object]:
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _task_objects(storage: Storage, task: Task) -> Iterator[None]:
    try:
        with held_object(storage, task_lock_name(task), patient=True):
            if is_held(storage, LOCK):
                who = holder(storage, LOCK)
                raise StoreError(f"{storage.name} is in use: {who} scores all of it; wait for it to end")
            yield
    except InUse as in_use:
        raise StoreError(_same_task(storage.name, task, str(in_use))) from None


def _same_task(folder: str, task: Task, who: str) -> str:
    return f"task {_name(task)} of {folder} is in use: {who} scores it; wait for it to end"


def _name(task: Task) -> str:
    return f"{task[0]}/{task[1]}"


def _task_of(name: str) -> Task | None:
    found = re.fullmatch(r"\.task-([0-9]{1,9})-of-([0-9]{1,9})\.lock", name)
    return None if found is None else (int(found[1]), int(found[2]))


__all__ = ["LOCK", "Task", "holders", "live_tasks", "opening", "remove_task_locks", "task_locked"]
