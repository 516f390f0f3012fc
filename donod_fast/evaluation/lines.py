"""Files that grow by a line, survive a kill in the middle of one, and may be shared by processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from donod_fast.errors import StoreError
from donod_fast.system.files import storage_error


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; none where it is absent. A line that a kill cut short is passed over.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    found = []
    for line in text.split(b"\n"):
        try:
            data = json.loads(line)
        except ValueError:
            continue  # cut short by a kill; what follows begins on a line of its own
        if isinstance(data, dict):
            found.append(data)
    return found


class LineWriter:
    """Appends whole lines, each by one write, so that processes that share the file do not mix theirs."""

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
    """Open a file of lines for appending; a last line that a kill cut short is ended first.

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
