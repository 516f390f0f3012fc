"""Append-only files of JSON lines that survive a kill in the middle of a line and can be shared by processes.

Each line ends with a checksum of its other members. A kill can cut the last line of a file only, so a line before it
that does not match its checksum was damaged later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from donod_fast.errors import StoreError
from donod_fast.system.checked_json import DamagedError, parsed_object
from donod_fast.system.files import atomic_writer, read_regular, storage_error


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file that several processes append to; empty if it does not exist.

    Lines that a kill truncated, and damaged ones, are skipped: what they held is computed again.

    Raises:
        StoreError: the file cannot be read.
    """
    found = []
    for line in _content(path).split(b"\n"):
        with suppress(DamagedError):  # truncated by a kill, perhaps; the next object begins on a new line
            found.append(parsed_object(line))
    return found


def checked_lines(path: Path, remedy: str, *, needs_checksums: bool) -> list[dict[str, Any]]:
    """The JSON objects of a file that one process appends to; empty if it does not exist.

    Args:
        path: the file. A last line that a kill truncated is skipped.
        remedy: end of the message about a damaged line.
        needs_checksums: refuse lines without a checksum, and lines that are not JSON; earlier releases left such ones.

    Raises:
        StoreError: the file cannot be read, or a line is damaged; names the line.
    """
    found = []
    lines = _content(path).split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(parsed_object(line, needs_checksum=needs_checksums))
        except DamagedError as error:
            if not needs_checksums and b'"sha256"' not in line:
                continue
            raise StoreError(f"{path}, line {number} is damaged ({error}); {remedy}") from error
    with suppress(DamagedError):
        found.append(parsed_object(lines[-1], needs_checksum=needs_checksums))
    return found


def drop_torn_line(path: Path) -> None:
    """Remove a last line that a kill truncated, so that all other lines can be relied on. The caller holds the lock.

    Raises:
        StoreError: the file cannot be read or written.
    """
    content = _content(path)
    whole, _, torn = content.rpartition(b"\n")
    if not torn:
        return
    with suppress(DamagedError):
        parsed_object(torn, needs_checksum=True)
        whole = content  # only its line end is missing
    with atomic_writer(path) as file:
        file.write(whole + b"\n" if whole else b"")


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


class LineWriter:
    """Appends whole lines, each with one write, so that lines of processes that share the file do not mix."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def write(self, lines: Iterable[bytes]) -> None:
        """Append lines (each with its line end) at once.

        Raises:
            StoreError: the file cannot be written.
        """
        data = b"".join(lines)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise storage_error(self._path, error) from error


@contextmanager
def line_writer(path: Path) -> Iterator[LineWriter]:
    """Open a file of lines for appending; first terminates a last line that a kill truncated.

    Raises:
        StoreError: the file cannot be opened for writing.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        writer = LineWriter(path, descriptor)
        size = os.fstat(descriptor).st_size
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                writer.write([b"\n"])
        yield writer
    finally:
        os.close(descriptor)
