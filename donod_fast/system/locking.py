"""One process at a time in a folder: a file lock on a disk, a lock object with a heartbeat on an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from donod_fast.errors import StoreError
from donod_fast.system.files import remove, storage_error
from donod_fast.system.lock_objects import InUse, held_object, is_held
from donod_fast.system.storage import Storage, open_storage
from donod_fast.system.task_locks import GLANCE_SECONDS, LOCK, holders, live_tasks, remove_task_locks


@contextmanager
def locked(place: Path | str) -> Iterator[None]:
    """Lock a folder for this process; the folder is created if it does not exist.

    On a disk, temporary files of a killed process are removed, and the lock ends with its process. On an object store
    the lock is an object that its holder renews; another process takes it over two minutes after its holder died, on
    the same machine at once. There two processes may hold a folder at the same time if the store has no conditional PUT
    or if a holder was suspended for longer than that. Then work is done twice, but no score is wrong: a part is one PUT
    of bytes that depend only on input and settings. On S3 the lock's age is told by the store's clock, so the clocks of
    the machines may differ; on other stores they must agree to a minute.

    Raises:
        StoreError: another process holds the folder, or tasks of an array do; or it cannot be written.
    """
    storage = open_storage(place)
    if storage.local is None:
        with _object_lock(storage):
            yield
        return
    with _file_lock(storage.local):
        yield


def is_locked(place: Path | str | Storage) -> bool:
    """Whether a process holds a folder, or a task of it, now. On a disk, a free lock is acquired for a moment."""
    storage = open_storage(place)
    if storage.local is None:
        return is_held(storage, LOCK) or bool(live_tasks(storage))
    if not storage.exists(LOCK):
        return False
    import filelock

    lock = filelock.FileLock(storage.local / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def _in_use(name: str, who: str | None = None) -> StoreError:
    verb = "score" if who is not None and "more of its array" in who else "scores"
    return StoreError(f"{name} is in use: {who or 'another process'} {verb} into it; wait for it to end")


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    import filelock

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / LOCK, timeout=GLANCE_SECONDS)
        lock.acquire()
    except filelock.Timeout:
        raise _in_use(str(path), holders(path)) from None
    except (OSError, NotImplementedError) as error:
        raise storage_error(path, error if isinstance(error, OSError) else OSError(str(error))) from error
    try:
        for file in path.glob(".*.tmp"):
            if not file.is_dir():
                remove(file)
        remove_task_locks(path)
        yield
    finally:
        lock.release()


@contextmanager
def _object_lock(storage: Storage) -> Iterator[None]:
    try:
        with held_object(storage, LOCK):
            if (who := holders(storage)) is not None:
                raise _in_use(storage.name, who)
            yield
    except InUse as in_use:
        raise _in_use(storage.name, str(in_use)) from None


__all__ = ["LOCK", "is_locked", "locked"]
