"""Writing a file so that it is complete or absent, whatever happens in between."""

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
    errno.EROFS: "the file system is read-only: name a folder that can be written",
    errno.EACCES: "permission denied: name a folder that can be written",
    errno.EPERM: "permission denied: name a folder that can be written",
    errno.ENOENT: "its folder does not exist",
    errno.EEXIST: "there is a file of that name, not a folder",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
}


def storage_error(path: Path, error: OSError) -> StoreError:
    """One clear sentence for an operating-system error on ``path``."""
    reason = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return StoreError(f"cannot write {path}: {reason}")


def temporary_name(name: str, process: int | str) -> str:
    """What a file is called while a process of this host writes it; with ``*`` a pattern to look for such files.

    Hosts that share a disk may have processes of the same number.
    """
    return f".{name}.{socket.gethostname()}.{process}.tmp"


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that takes ``path``'s name only once it is whole and on disk.

    Written under another name in the same folder, synced, renamed, the folder synced. On any error the
    target is untouched and the temporary file removed.

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
    """Delete a file if it is there.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(file, error) from error
