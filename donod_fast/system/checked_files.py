"""Read stored files without surprises, and find those below a folder that have changed since they were written."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from donod_fast.errors import StoreError


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading; anything but a regular file (a pipe would block forever) is refused.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path) -> bytes:
    """The content of a regular file; see :func:`open_regular`."""
    with open_regular(path) as file:
        return file.read()


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digests(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of every regular file below a folder, by its path there with ``/``; hidden files are left out.

    Args:
        folder: the folder.
        without: names in the folder itself to leave out.

    Raises:
        StoreError: a file cannot be read.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in without or any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        try:
            found[name.as_posix()] = file_digest(path)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    return found


def refuse_changed_files(folder: Path, digests: Mapping[str, str], remedy: str, *, below: str = "") -> None:
    """Compare files with their checksums; a file that was removed is left to its reader.

    Args:
        folder: the folder.
        digests: from :func:`tree_digests`.
        remedy: end of the message.
        below: only files of this name, or in the folder of this name.

    Raises:
        StoreError: a file has changed; names it.
    """
    for name, wanted in digests.items():
        path = folder / name
        if below and name != below and not name.startswith(f"{below}/"):
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StoreError(f"{folder} records a checksum of {name!r}, which is outside; {remedy}")
        try:
            found = file_digest(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
        if found != wanted:
            raise StoreError(f"{path} has changed since it was written; {remedy}")


__all__ = ["file_digest", "open_regular", "read_regular", "refuse_changed_files", "tree_digests"]
