"""Atomic writing: a file is complete or absent, even after a crash."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from donod_fast.errors import StoreError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the command again",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: choose a folder that can be written",
    errno.EPERM: "permission denied: choose a folder that can be written",
    errno.ENOENT: "its folder does not exist",
    errno.EEXIST: "a file with this name exists, not a folder",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
}


def storage_error(path: Path, error: OSError) -> StoreError:
    """Make a StoreError from an operating-system error on ``path``, with a remedy."""
    reason = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return StoreError(f"cannot write {path}: {reason}")


def temporary_name(name: str, process: int | str) -> str:
    """Name of a file while a process of this host writes it; with ``*`` as the process, a pattern for such files.

    The host is in the name because hosts that share a disk may have equal process numbers.
    """
    return f".{name}.{socket.gethostname()}.{process}.tmp"


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that gets ``path``'s name only when it is complete and on disk.

    It is written under another name in the same folder, synced and renamed; then the folder is synced. On any
    error the target is unchanged and the temporary file is removed.

    Raises:
        StoreError: for any operating-system error (disk full, read-only, …), naming file and remedy.
    """
    temporary = path.with_name(temporary_name(path.name, os.getpid()))
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(file: Path) -> None:
    """Delete a file if it exists.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(file, error) from error
