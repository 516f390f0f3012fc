"""The layout of Arrow IPC files and streams: where each message is and how many rows it has, without reading values.

A file is a row of messages: a schema, dictionaries, record batches. A message is a header, a FlatBuffers table, and a
body, the columns' buffers. The file format has a footer that lists the messages; a stream is walked from header to
header. pyarrow reads bodies, but has no way to read headers alone.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAGIC = b"ARROW1"
SCHEMA, DICTIONARY, BATCH = 1, 2, 3
_MARK = b"\xff\xff\xff\xff"
_MOST_HEADER = 1 << 26
"""Bytes of the largest header or footer: a header has 32 bytes for each buffer of a batch."""

_FIRST = 8
"""Where the schema of the file format is: after the magic bytes."""

_PADDING = 64
"""Most bytes between two messages: both are aligned to 8 or 64 bytes, and an end mark has 8."""

_KINDS = {SCHEMA: "schema", DICTIONARY: "dictionary", BATCH: "record batch"}


class LayoutError(ValueError):
    """What the file says of itself cannot be true; the message says where."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message.

    Attributes:
        kind: ``SCHEMA``, ``DICTIONARY`` or ``BATCH``.
        start: its first byte in the file.
        body: the first byte of its body.
        stop: one past its last byte.
        rows: of a record batch, or the values of a dictionary; 0 for a schema.
        arrays: how many arrays the body has, those inside of others too.
        header: the bytes before the body.
        buffers: byte within the body and length of each buffer that is compressed; empty if none is.
    """

    kind: int
    start: int
    body: int
    stop: int
    rows: int = 0
    arrays: int = 0
    header: bytes = field(default=b"", repr=False)
    buffers: tuple[tuple[int, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the messages of a file begin.

    Attributes:
        schema: first byte of the schema.
        dictionaries: first byte of each dictionary.
        batches: first byte of each record batch.
        ended: whether a stream has its end mark; a file always has.
    """

    schema: int
    dictionaries: tuple[int, ...]
    batches: tuple[int, ...]
    ended: bool = True


def is_file_format(file: BinaryIO) -> bool:
    """Whether a file has the file format and not that of a stream."""
    file.seek(0)
    return file.read(len(MAGIC)) == MAGIC


def layout_of_footer(file: BinaryIO, size: int) -> Layout:
    """The layout of a file by its footer.

    Args:
        file: in the file format.
        size: its bytes.

    Raises:
        LayoutError: there is no footer, as at the end of a truncated file, or it is damaged.
        OSError: the file cannot be read.
    """
    tail = len(MAGIC) + 4
    if size < _FIRST + tail:
        raise LayoutError("its end with the footer is missing")
    file.seek(size - tail)
    end = _read(file, tail)
    length = int.from_bytes(end[:4], "little", signed=True)
    if end[4:] != MAGIC:
        raise LayoutError("its end with the footer is missing")
    if not 0 < length <= min(_MOST_HEADER, size - tail - _FIRST):
        raise LayoutError(f"the footer would have {length:,} bytes")
    begin = size - tail - length
    file.seek(begin)
    footer = _Table.root(_read(file, length))
    found: dict[int, tuple[int, ...]] = {}
    for slot in (DICTIONARY, BATCH):  # a footer has them in the slots of these numbers
        blocks = footer.structs(slot, 24)
        starts = tuple(struct.unpack_from("<q", block)[0] for block in blocks)
        wrong = next((at for at, start in enumerate(starts) if not _FIRST <= start < begin), None)
        if wrong is not None:
            raise LayoutError(f"the footer puts {_KINDS[slot]} {wrong} at byte {starts[wrong]:,}")
        found[slot] = starts
    return Layout(_FIRST, found[DICTIONARY], found[BATCH])


def walked(file: BinaryIO, size: int, begin: int = 0) -> Iterator[Message]:
    """The messages of a stream from a byte on, header by header. The last one has the kind 0 if there is an end mark.

    Raises:
        LayoutError: a header is damaged, or the stream ends within a message.
        OSError: the file cannot be read.
    """
    at = begin
    while at < size:
        message = message_at(file, at, size)
        yield message
        if message.kind == 0:
            if message.stop < size:
                raise LayoutError(f"{size - message.stop:,} bytes follow the end of the stream")
            return
        at = message.stop


def whole_batches(file: BinaryIO, size: int) -> int:
    """How many whole record batches a file of the file format has before it ends or is damaged, without its footer."""
    count = 0
    try:
        for message in walked(file, size, _FIRST):
            count += message.kind == BATCH
    except LayoutError:
        pass
    return count


def message_at(file: BinaryIO, start: int, size: int) -> Message:
    """The message at a byte; its body is not read. The kind is 0 at the end mark of a stream.

    Raises:
        LayoutError: there is no whole message.
        OSError: the file cannot be read.
    """
    file.seek(start)
    prefix = file.read(8)
    old = prefix[:4] != _MARK  # releases before 0.15 wrote no mark before the length
    length = int.from_bytes(prefix[:4] if old else prefix[4:], "little", signed=True)
    body = start + (4 if old else 8)
    if len(prefix) < (4 if old else 8):
        raise LayoutError(f"it ends within a header at byte {start:,}")
    if length == 0:
        return Message(0, start, body, body)
    if not 8 <= length <= _MOST_HEADER:
        raise LayoutError(f"the header at byte {start:,} would have {length:,} bytes")
    if body + length > size:
        raise LayoutError(f"it ends within a header at byte {start:,}")
    header = prefix[4:] if old else b""
    header += _read(file, length - len(header))
    try:
        return _message(header, start, body + length, size, prefix[:4] if old else prefix)
    except struct.error as error:
        raise LayoutError(f"the header at byte {start:,} is damaged") from error


def _message(header: bytes, start: int, body: int, size: int, prefix: bytes) -> Message:
    table = _Table.root(header)
    kind, length = table.number(1, "<B"), table.number(3, "<q")
    if kind not in _KINDS:
        raise LayoutError(f"the message at byte {start:,} is neither a schema, a dictionary nor a record batch")
    if length < 0 or body + length > size:
        raise LayoutError(f"it ends within the {_KINDS[kind]} at byte {start:,}")
    batch = table.table(2)
    if kind == DICTIONARY:
        batch = batch.table(1)
    if kind == SCHEMA:
        return Message(kind, start, body, body + length, header=prefix + header)
    rows = batch.number(0, "<q")
    if rows < 0:
        raise LayoutError(f"the {_KINDS[kind]} at byte {start:,} would have {rows:,} rows")
    nodes = batch.structs(1, 16)  # length and nulls of each array, the first of which is a whole column
    if (nodes or kind == DICTIONARY or rows) and (not nodes or struct.unpack_from("<q", nodes[0])[0] != rows):
        raise LayoutError(f"the {_KINDS[kind]} at byte {start:,} has columns of another length than {rows:,} rows")
    buffers: tuple[tuple[int, int], ...] = ()
    if batch.has(3):
        pairs = (struct.unpack("<qq", pair) for pair in batch.structs(2, 16))
        buffers = tuple((begin, count) for begin, count in pairs if count > 0)
        if any(begin < 0 or begin + count > length for begin, count in buffers):
            raise LayoutError(f"a buffer of the {_KINDS[kind]} at byte {start:,} is outside of it")
    return Message(kind, start, body, body + length, rows, len(nodes), prefix + header, buffers)


def refuse_unlisted(file: BinaryIO, spans: Sequence[tuple[int, int]]) -> None:
    """Refuse a file of the file format with a message that its footer does not list: its rows would be missing.

    Args:
        file: in the file format.
        spans: first byte of each message that the footer lists, and one past its last, in any order.

    Raises:
        LayoutError: messages overlap, or there is more than padding or an end mark between two or after the last.
        OSError: the file cannot be read.
    """
    tail = len(MAGIC) + 4
    size = file.seek(0, io.SEEK_END)
    file.seek(size - tail)
    footer = size - tail - int.from_bytes(_read(file, 4), "little", signed=True)
    before = _FIRST
    for begin, end in [*sorted(spans), (footer, footer)]:
        if begin < before:
            raise LayoutError(f"two messages overlap at byte {begin:,}")
        file.seek(before)
        between = _read(file, min(begin - before, _PADDING + 1))
        if len(between) > _PADDING or between.replace(_MARK, b"").strip(b"\0"):
            raise LayoutError(f"the footer does not list what is at byte {before:,}")
        before = end


def plain_size(file: BinaryIO, message: Message) -> int:
    """Bytes of a message's compressed buffers after decompression, as they say; 0 if none is compressed."""
    size = 0
    for begin, count in message.buffers:
        if count >= 8:
            file.seek(message.body + begin)
            size += max(int.from_bytes(_read(file, 8), "little", signed=True), 0)  # -1: this one is not compressed
    return size


class Feed(io.RawIOBase):
    """Messages of a file as one stream; more of them can be added while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ranges: list[tuple[int, int]] = []
        self.dictionaries = 0
        """One past the first byte of the last dictionary that was added."""

    def add(self, message: Message) -> None:
        self._ranges.append((message.start, message.stop))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._ranges:
            begin, end = self._ranges[0]
            self._file.seek(begin)
            content = self._file.read(min(len(view) - filled, end - begin))
            if not content:
                raise OSError(f"the file ends at byte {begin:,}")
            view[filled : filled + len(content)] = content
            filled += len(content)
            begin += len(content)
            if begin < end:
                self._ranges[0] = (begin, end)
            else:
                del self._ranges[0]
        return filled


class _Table:
    """A FlatBuffers table: reads its fields by their slots. Raises struct.error where the bytes end."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self._fields = at - self._unpack("<i", at)
        self._size = self._unpack("<H", self._fields)

    @staticmethod
    def root(content: bytes) -> _Table:
        if len(content) < 4:
            raise struct.error("no table")
        return _Table(content, struct.unpack_from("<I", content)[0])

    def has(self, slot: int) -> bool:
        return self._place(slot) is not None

    def number(self, slot: int, form: str) -> int:
        place = self._place(slot)
        return 0 if place is None else self._unpack(form, place)

    def table(self, slot: int) -> _Table:
        place = self._place(slot)
        if place is None:
            raise struct.error("a table is missing")
        return _Table(self._content, place + self._unpack("<I", place))

    def structs(self, slot: int, size: int) -> Sequence[bytes]:
        """The structs of a vector, ``size`` bytes each."""
        place = self._place(slot)
        if place is None:
            return ()
        begin = place + self._unpack("<I", place)
        count, begin = self._unpack("<I", begin), begin + 4
        if begin + count * size > len(self._content):
            raise struct.error("a vector ends outside")
        return [self._content[at : at + size] for at in range(begin, begin + count * size, size)]

    def _place(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._size:
            return None
        offset = self._unpack("<H", self._fields + entry)
        return self._at + offset if offset else None

    def _unpack(self, form: str, at: int) -> int:
        if at < 0:
            raise struct.error("outside")
        return int(struct.unpack_from(form, self._content, at)[0])


def _read(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise LayoutError("it ends too early")
    return content


__all__ = [
    "BATCH",
    "DICTIONARY",
    "SCHEMA",
    "Feed",
    "Layout",
    "LayoutError",
    "Message",
    "is_file_format",
    "layout_of_footer",
    "message_at",
    "plain_size",
    "refuse_unlisted",
    "walked",
    "whole_batches",
]
