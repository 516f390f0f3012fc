"""Atomic writing: a file is complete or absent, even after a crash."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from donod_fast.errors import StoreError
from donod_fast.system.scratch import is_abandoned, lock_descriptor

DISK_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the command again",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EFBIG: "the file would be larger than the limit on the size of files (ulimit -f) allows",
}
"""What to say of errors of the disk, whatever was done."""

_REMEDIES = {
    **DISK_REMEDIES,
    errno.EACCES: "permission denied: choose a folder that can be written",
    errno.EPERM: "permission denied: choose a folder that can be written",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n 4096)",
    errno.ENOENT: "its folder does not exist",
    errno.EEXIST: "a file with this name exists, not a folder",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
}


def storage_error(path: Path, error: OSError) -> StoreError:
    """Make a StoreError from an operating-system error on ``path``, with a remedy."""
    reason = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return StoreError(f"cannot write {path}: {reason}")


_LONGEST_NAME = 150
"""Bytes of a file's name in the name of its temporary file: file systems allow 255 in all."""

_swept: set[Path] = set()


def temporary_name(name: str, process: int | str) -> str:
    """Name of a file while a process of this host writes it; with ``*`` as the process, a pattern for such files.

    The host is in the name because hosts that share a disk may have equal process numbers.
    """
    begin = os.fsencode(name)[:_LONGEST_NAME].decode("utf-8", "ignore")
    return f".{begin}.{socket.gethostname()}.{process}.tmp"


def remove_abandoned_files(folder: Path) -> None:
    """Remove temporary files in a folder whose process, on this host, was killed. Errors are ignored."""
    end = temporary_name("", "")[1:].removesuffix(".tmp")
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if one.name.startswith(".") and one.name.endswith(".tmp")]
    except OSError:
        return
    for name in names:
        if end in name and is_abandoned(folder / name):
            with suppress(OSError):
                (folder / name).unlink()


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that gets ``path``'s name only when it is complete and on disk.

    It is written under another name in the same folder, synced and renamed; then the folder is synced. On any
    error the target is unchanged and the temporary file is removed. If its process is killed, the next one that writes
    into the folder removes it: the file is locked while it is written.

    Raises:
        StoreError: for any operating-system error (disk full, read-only, …), naming file and remedy.
    """
    temporary = path.with_name(temporary_name(path.name, os.getpid()))
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_abandoned_files(path.parent)
    try:
        with _locked_file(temporary) as file:
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


_LOCK_ATTEMPTS = 100


def _locked_file(path: Path) -> io.BufferedWriter:
    """A new file of this process alone: another one may have taken it for litter before it was locked.

    Raises:
        OSError: it cannot be opened, or its name led to another file after each of ``_LOCK_ATTEMPTS`` attempts.
    """
    for _ in range(_LOCK_ATTEMPTS):
        file = path.open("wb")
        lock_descriptor(file.fileno())
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                return file
        file.close()
    raise OSError(errno.EBUSY, "another program removes or replaces every new file in this folder", str(path))


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading; never wait for a pipe's writer, nor read a device without an end.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises OSError as :func:`open_regular`."""
    with open_regular(path) as file:
        return file.read()


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
