"""One process at a time in a folder: a file lock on a disk, a lock object with a heartbeat on an object store."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from donod_fast.errors import StoreError
from donod_fast.system.files import remove, storage_error
from donod_fast.system.storage import Storage, open_storage, unreadable

_log = logging.getLogger(__name__)

LOCK = ".lock"

BEAT_SECONDS = 20.0
"""Seconds between renewals of a lock object by its holder."""

DEAD_SECONDS = 120.0
"""The holder of a lock object older than this many seconds counts as dead."""

_GLANCE_SECONDS = 0.5  # is_locked() holds the lock for a moment


@contextmanager
def locked(place: Path | str) -> Iterator[None]:
    """Lock a folder for this process; the folder is created if it does not exist.

    On a disk, temporary files of a killed process are removed, and the lock ends with its process. On an object store
    the lock is an object that its holder renews; another process takes it over two minutes after its holder died. There
    two processes may hold a folder at the same time if the store has no conditional PUT or if a holder was suspended
    for longer than that. Then work is done twice, but no score is wrong: a part is one PUT of bytes that depend only on
    input and settings. On S3 the lock's age is told by the store's clock, so the clocks of the machines may differ; on
    other stores they must agree to a minute.

    Raises:
        StoreError: another process holds the folder, or it cannot be written.
    """
    storage = open_storage(place)
    if storage.local is None:
        with _object_lock(storage):
            yield
        return
    with _file_lock(storage.local):
        yield


def is_locked(place: Path | str | Storage) -> bool:
    """Whether a process holds a folder now. On a disk, a free lock is acquired for a moment."""
    storage = open_storage(place)
    if not storage.exists(LOCK):
        return False
    if storage.local is None:
        return _age(storage) < DEAD_SECONDS
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


def _in_use(name: str, who: str = "another process") -> StoreError:
    return StoreError(f"{name} is in use: {who} scores into it; wait for it to end")


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    import filelock

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / LOCK, timeout=_GLANCE_SECONDS)
        lock.acquire()
    except filelock.Timeout:
        raise _in_use(str(path)) from None
    except (OSError, NotImplementedError) as error:
        raise storage_error(path, error if isinstance(error, OSError) else OSError(str(error))) from error
    try:
        for file in path.glob(".*.tmp"):
            if not file.is_dir():
                remove(file)
        yield
    finally:
        lock.release()


@contextmanager
def _object_lock(storage: Storage) -> Iterator[None]:
    token = uuid.uuid4().hex
    content = json.dumps({"token": token, "host": socket.gethostname(), "process": os.getpid()}).encode()
    storage.make()
    if not storage.create(LOCK, content):
        if _age(storage) < DEAD_SECONDS:
            raise _in_use(storage.name, _holder(storage))
        storage.write(LOCK, content)
    if _token_now(storage) != token:  # another process took it over at the same moment
        raise _in_use(storage.name, _holder(storage))
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(storage, content, token, over), name="lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
        _release(storage, token)


def _release(storage: Storage, token: str) -> None:
    """Remove the lock, if the store lets us; an error here must not hide that of the run."""
    try:
        if _token(storage) == token:
            storage.remove(LOCK)
    except StoreError as error:
        _log.warning("%s stays locked for %g s: %s", storage.name, DEAD_SECONDS, error)


def _beat(storage: Storage, content: bytes, token: str, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        if _token(storage) not in (token, None):  # taken over while this process was suspended
            return
        try:
            storage.write(LOCK, content)
        except StoreError:  # the next renewal may succeed; parts are safe without it
            continue


def _age(storage: Storage) -> float:
    try:
        return storage.age(LOCK)
    except FileNotFoundError:
        return float("inf")


def _token(storage: Storage) -> str | None:
    """Whose lock it is; None if there is none or the store does not say."""
    try:
        return _token_now(storage)
    except StoreError:
        return None


def _token_now(storage: Storage) -> str | None:
    try:
        return str(json.loads(storage.read(LOCK))["token"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    except OSError as error:
        raise unreadable(storage, LOCK, error) from error


def _holder(storage: Storage) -> str:
    try:
        held = json.loads(storage.read(LOCK))
        return f"process {held['process']} on {held['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


__all__ = ["LOCK", "is_locked", "locked"]
