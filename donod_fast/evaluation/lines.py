"""Append-only files of JSON lines that survive a kill in the middle of a line and can be shared by processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from donod_fast.errors import StoreError
from donod_fast.system.files import read_regular, storage_error


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; empty if it does not exist. A line that a kill truncated is skipped.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        text = read_regular(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    found = []
    for line in text.split(b"\n"):
        try:
            data = json.loads(line)
        except ValueError:
            continue  # truncated by a kill; the next object begins on a new line
        if isinstance(data, dict):
            found.append(data)
    return found


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
