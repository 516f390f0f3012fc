"""Streams that cannot make memory or time explode: files that expand, files of holes, and lines without an end."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from donod_fast.errors import CorpusError
from donod_fast.system.limits import MIB, SPARSE_BYTES, ReadLimits
from donod_fast.system.places import LocalPlace, Place

MANY_BLANKS = 64
"""Blank lines in a row from which they are skipped in blocks."""

_BLOCK = 1 << 20
_MOST_HOLES = 1 << 16


class StoredBytes(io.RawIOBase):
    """A file's bytes as stored, unchanged, and how many of them were read."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.size += count
        return count


class PlainBytes(io.RawIOBase):
    """The bytes of a decompressor, refused when they are too many for the stored bytes that it has taken.

    Args:
        name: the file as the user gave it.
        plain: the decompressor; only ``readinto`` is called.
        stored: what it takes its bytes from.
        limits: how many times the stored size is allowed.
    """

    def __init__(self, name: str, plain: Any, stored: StoredBytes, limits: ReadLimits) -> None:
        self._name, self._plain, self._stored, self._limits = name, plain, stored, limits
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._plain.readinto(buffer) or 0
        self._size += count
        if self._size > self._limits.plain_bytes(self._stored.size):
            raise CorpusError(
                f"{self._name}: the compressed file expands too much: {self._size / MIB:,.0f} MiB out of "
                f"{self._stored.size:,} bytes, which is more than {self._limits.expansion:,} times; if you trust it, "
                "raise --max-expansion"
            )
        return count


def refuse_sparse(name: str, place: Place, size: int) -> None:
    """Refuse a file with so many holes that reading it takes hours; only very large local files are looked at.

    Raises:
        CorpusError: names the bytes that were never written.
    """
    if size <= SPARSE_BYTES or not isinstance(place, LocalPlace) or not hasattr(os, "SEEK_HOLE"):
        return
    holes = end = 0
    with place.path.open("rb", buffering=0) as file:
        for _ in range(_MOST_HOLES):
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # no data after this position
                begin = size
            holes += begin - end
            if begin >= size:
                break
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            if end >= size:
                break
    if holes > SPARSE_BYTES:
        raise CorpusError(
            f"{name}: {holes >> 30:,} GiB of it were never written (holes of a sparse file, as an interrupted download "
            "leaves them); fetch the file again"
        )


class LongLine(bytes):
    """The beginning of a line that is longer than the limit.

    Attributes:
        size: its length in bytes, with its line end.
        is_blank: whether all of it is white space.
    """

    size: int
    is_blank: bool


def bounded_lines(stream: BinaryIO, limits: ReadLimits) -> Iterator[bytes]:
    """The lines of a stream with their line ends, as iterating over it gives them.

    Of a line with more than ``limits.record_bytes`` only a beginning is given, as a :class:`LongLine`.
    """
    most = limits.record_bytes + 1
    while line := stream.readline(most):
        yield line if len(line) < most or line.endswith(b"\n") else rest_skipped(stream, line)


def rest_skipped(stream: BinaryIO, begin: bytes) -> LongLine:
    """Read over the rest of a line whose beginning has been read."""
    size, last, is_blank = len(begin), begin, not begin.strip()
    while not last.endswith(b"\n") and (last := stream.readline(_BLOCK)):
        size += len(last)
        is_blank = is_blank and not last.strip()
    cut = LongLine(begin[:_BLOCK])
    cut.size, cut.is_blank = size, is_blank
    return cut


def blank_lines_skipped(stream: BinaryIO) -> tuple[int, int]:
    """Skip lines of white space in blocks, up to the beginning of a line that may not be blank.

    Returns:
        Number of lines skipped, and of their bytes.
    """
    peek: Any = getattr(stream, "peek", None)
    lines = size = 0
    while peek is not None and (block := peek(_BLOCK)):
        blank = len(block) - len(block.lstrip())
        end = block.rfind(b"\n", 0, blank) + 1
        if not end:
            break
        lines += block.count(b"\n", 0, end)
        size += end
        stream.read(end)
        if blank < len(block):
            break
    return lines, size


def filled_lines(
    stream: BinaryIO, limits: ReadLimits, line: int = 1, offset: int = 0
) -> Iterator[tuple[int, int, bytes]]:
    """Yield (byte offset, line number, line) of the lines of a stream, but of many blank lines in a row only some.

    Args:
        stream: the bytes, from the beginning of a line.
        limits: see :func:`bounded_lines`.
        line: number of that line.
        offset: its position.
    """
    blanks = 0
    for text in bounded_lines(stream, limits):
        yield offset, line, text
        offset += text.size if isinstance(text, LongLine) else len(text)
        line += 1
        blanks = 0 if len(text) > MANY_BLANKS or text.strip() else blanks + 1
        if blanks >= MANY_BLANKS:
            lines, size = blank_lines_skipped(stream)
            line, offset, blanks = line + lines, offset + size, 0


__all__ = [
    "MANY_BLANKS",
    "LongLine",
    "PlainBytes",
    "StoredBytes",
    "blank_lines_skipped",
    "bounded_lines",
    "filled_lines",
    "refuse_sparse",
    "rest_skipped",
]
