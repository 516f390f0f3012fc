"""Arrow IPC: files (``.arrow``, ``.feather``) and streams (``.arrow`` as ``datasets`` writes them, ``.arrows``).

The two are told apart by their first bytes. Opening reads headers only; reading can start at any record batch: pyarrow
is given the schema, the dictionaries and then the batches from there on as one stream.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, BinaryIO, cast

import pyarrow as pa

from donod_fast.data.reading.arrow_messages import (
    BATCH,
    DICTIONARY,
    SCHEMA,
    Feed,
    Layout,
    LayoutError,
    Message,
    is_file_format,
    layout_of_footer,
    message_at,
    plain_size,
    refuse_unlisted,
    walked,
    whole_batches,
)
from donod_fast.data.reading.source import Checkpoint, Unmarked
from donod_fast.data.reading.streams import (
    BUFFER_BYTES,
    FileFacts,
    changed_error,
    file_errors,
    peeking,
    refuse_moving,
    scanning,
    unchanged,
)
from donod_fast.data.reading.tables import rows_of_batch, table_records
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.system.limits import FREE_ROWS, MIB, ReadLimits
from donod_fast.system.places import Place
from donod_fast.system.wording import plural

KIND = "arrow"

HEADER_BLOCK = 1 << 16
"""Bytes per request while headers of a remote file are read: a header has some hundred bytes."""

SAMPLE_BYTES = 1 << 12
"""Bytes at the beginning and the end of each body that the digest covers, beside all headers."""

_FEATHER_1 = b"FEA1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArrowFile(Unmarked):
    """An Arrow file or stream. Nulls are treated as those of Parquet: see :class:`ParquetFile`.

    Attributes:
        facts: the file's state when it was opened. Unless it is compressed as a whole, headers and samples of the
            values were read and hashed: see :func:`open_arrow`.
        groups: rows of each record batch.
        stream: where the messages of a stream begin; None for the file format, whose footer says so.
    """

    facts: FileFacts
    groups: tuple[int, ...] = field(repr=False)
    stream: Layout | None = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.groups)

    @property
    def name(self) -> str:
        """The file as the user gave it."""
        return self.facts.name

    @property
    def digest(self) -> str:
        """Hash of the kind, the headers, samples of the values and the size; see :func:`open_arrow`."""
        return f"{KIND} {self.facts.digest}"

    def describe(self) -> dict[str, Any]:
        """The facts that :func:`open_arrow` and a later check need, as JSON types."""
        found = {**self.facts.describe(KIND, self.rows), "row_groups": list(self.groups)}
        if self.stream is not None:
            found |= {"starts": list(self.stream.batches), "dictionaries": list(self.stream.dictionaries)}
        return found

    def row_groups(self) -> Sequence[int] | None:
        """Rows of each record batch."""
        return self.groups

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream rows as records, record batch by record batch; see :class:`Source`."""
        return table_records(self.arrow_batches(start, stop), self.name, first_row, self.facts.limits)

    def arrow_schema(self) -> pa.Schema:
        """The schema of the file, with all metadata.

        Raises:
            CorpusError: the file cannot be read, or has changed.
        """
        with unchanged(self.facts), ExitStack() as stack:
            file = _opened(stack, self.facts)
            with _layout_errors(self.name):
                layout = self._layout(file)
                return _schema(message_at(file, layout.schema, self._size(file)))

    def arrow_batches(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Stream the rows ``start <= i < stop`` as Arrow batches; see :meth:`ParquetFile.arrow_batches`.

        Raises:
            CorpusError: the file cannot be read, or has changed; names the record batch.
        """
        if start >= stop:
            return
        stops = list(accumulate(self.groups))
        wanted = [at for at, end in enumerate(stops) if end > start and end - self.groups[at] < stop]
        with unchanged(self.facts), ExitStack() as stack:
            file = _opened(stack, self.facts)
            with _layout_errors(self.name):
                layout = self._layout(file)
            if len(layout.batches) != len(self.groups):
                what = f"{plural(len(layout.batches), 'record batch', 'record batches')}, {len(self.groups)} before"
                raise changed_error(self.facts, what)
            reader: Any = None
            feed = Feed(file)
            for at in wanted:
                begin = stops[at] - self.groups[at]
                with _layout_errors(f"{self.name}, record batch {at} (records {begin} to {stops[at] - 1})"):
                    message = message_at(file, layout.batches[at], self._size(file))
                    if message.kind != BATCH or message.rows != self.groups[at]:
                        raise LayoutError(f"it has {message.rows:,} rows, {self.groups[at]:,} before")
                    before = (one for one in layout.dictionaries if one < message.start or self.stream is None)
                    self._add(feed, file, layout, before, message, is_first=reader is None)
                    if reader is None:
                        reader = stack.enter_context(pa.ipc.open_stream(pa.PythonFile(feed, mode="r")))
                    batch = reader.read_next_batch()
                    batch.validate(full=True)  # a damaged file may tell of lengths beyond its end
                yield from _pieces(batch, begin, start, stop)

    def _size(self, file: BinaryIO) -> int:
        return self.facts.size if self.facts.compression is None else file.seek(0, io.SEEK_END)

    def _layout(self, file: BinaryIO) -> Layout:
        return layout_of_footer(file, self._size(file)) if self.stream is None else self.stream

    def _add(
        self, feed: Feed, file: BinaryIO, layout: Layout, dictionaries: Iterable[int], batch: Message, is_first: bool
    ) -> None:
        """Give pyarrow what it needs before a batch, and the batch."""
        size = self._size(file)
        starts = [layout.schema] if is_first else []
        starts += [one for one in dictionaries if one >= feed.dictionaries]
        for one in starts:
            message = message_at(file, one, size)
            if message.kind != (SCHEMA if one == layout.schema else DICTIONARY):
                raise LayoutError(f"the message at byte {one:,} is of another kind than before")
            _refuse_expansion(self.facts, file, message)
            feed.add(message)
            feed.dictionaries = max(feed.dictionaries, one + 1)
        _refuse_expansion(self.facts, file, batch)
        feed.add(batch)


def restored_arrow(facts: FileFacts, entry: Mapping[str, Any], _: Iterable[Checkpoint]) -> ArrowFile:
    """The file of an entry, without reading it. Raises KeyError: the entry is incomplete."""
    stream = None
    if "starts" in entry:
        stream = Layout(0, tuple(entry["dictionaries"]), tuple(entry["starts"]))
    return ArrowFile(facts, tuple(entry["row_groups"]), stream)


def open_arrow(name: str, place: Place, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT) -> ArrowFile:
    """Read the headers of an Arrow file or stream, or the whole file if it is compressed as a whole.

    The digest covers the schema, the header of each dictionary and record batch (which has the length of each column),
    the first and the last ``SAMPLE_BYTES`` of each body, and the size of the file. A file with other rows has another
    digest, but a changed value in the middle of a batch that leaves all lengths as they are does not change it; the
    stamp does, and the hashes of the records show it when a row is read again.

    Raises:
        CorpusError: the file cannot be read, is not an Arrow file, ends too early, has two columns of one name, or
            tells of more rows than it can have; names the record batch.
    """
    with ExitStack() as stack:
        if compression is None:
            with file_errors(name):
                stat = place.settled_stat()
                stream: Any = stack.enter_context(place.open_table(stat.size, HEADER_BLOCK))
                size = stat.size
                groups, layout, digest = _scanned(name, stream, size)
                facts = FileFacts(name, place, None, size, stat.stamp, digest, True, limits=limits)
            refuse_moving(name, place, stat, stream.seek(0, io.SEEK_END))
        else:
            stream = stack.enter_context(tempfile.TemporaryFile())
            with scanning(name, place, compression, limits) as scan:
                shutil.copyfileobj(scan.stream, stream)
            facts = scan.facts
            groups, layout, _ = _scanned(name, stream, stream.tell())
    if sum(groups) > FREE_ROWS + limits.expansion * facts.size:
        raise CorpusError(
            f"{name}: {sum(groups):,} rows in {facts.size:,} bytes are too many; if you trust it, raise --max-expansion"
        )
    return ArrowFile(facts, groups, layout)


class _Scan:
    """What the headers say: the rows of each record batch, and the hash of headers and samples."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.groups: list[int] = []
        self.columns = 0
        self._arrays = -1

    def take(self, message: Message) -> None:
        """Take a message. Raises LayoutError: a record batch lacks columns."""
        self.digest.update(message.header)
        for begin in sorted({message.body, max(message.body, message.stop - SAMPLE_BYTES)}):
            self._file.seek(begin)
            self.digest.update(self._file.read(min(SAMPLE_BYTES, message.stop - begin)))
        if message.kind == BATCH:
            if message.arrays < self.columns or message.arrays != self._arrays >= 0:
                raise LayoutError(f"it has {message.arrays} arrays for {plural(self.columns, 'column')}")
            self._arrays = message.arrays
            self.groups.append(message.rows)


def _scanned(name: str, file: BinaryIO, size: int) -> tuple[tuple[int, ...], Layout | None, str]:
    """Rows of each record batch, the layout of a stream, and the hash of headers and samples."""
    with file_errors(name):
        file.seek(0)
        if file.read(4) == _FEATHER_1:
            raise CorpusError(
                f"{name}: Feather of version 1, which is no Arrow file; convert it: "
                "pyarrow.feather.write_feather(pyarrow.feather.read_table(OLD), NEW)"
            )
        in_file_format = is_file_format(file)
    scan, layout = _Scan(file), None
    if in_file_format:
        _scan_file(name, file, size, scan)
    else:
        layout = _scan_stream(name, file, size, scan)
    return tuple(scan.groups), layout, scan.digest.hexdigest()


def _scan_file(name: str, file: BinaryIO, size: int, scan: _Scan) -> None:
    with _layout_errors(name):
        try:
            layout = layout_of_footer(file, size)
        except LayoutError as error:
            whole = whole_batches(file, size)
            raise LayoutError(f"{error}; it has {whole} whole record batches, and ends or is damaged after") from error
        schema = message_at(file, layout.schema, size)
        scan.columns = _check_names(name, schema)
        scan.take(schema)
        spans = [(schema.start, schema.stop)]
    for kind, starts in ((DICTIONARY, layout.dictionaries), (BATCH, layout.batches)):
        for at, start in enumerate(starts):
            with _layout_errors(f"{name}, {'record batch' if kind == BATCH else 'dictionary'} {at}"):
                message = message_at(file, start, size)
                if message.kind != kind:
                    raise LayoutError(f"the message at byte {start:,} is not what the footer says")
                scan.take(message)
                spans.append((message.start, message.stop))
    with _layout_errors(name):
        refuse_unlisted(file, spans)


def _scan_stream(name: str, file: BinaryIO, size: int, scan: _Scan) -> Layout:
    starts: dict[int, list[int]] = {SCHEMA: [], DICTIONARY: [], BATCH: []}
    messages, ended = walked(file, size), False
    while True:
        with _layout_errors(name if not starts[SCHEMA] else f"{name}, record batch {len(scan.groups)}"):
            message = next(messages, None)
            if message is None or message.kind == 0:
                ended = message is not None
                for _ in messages:  # says so if bytes follow the end mark
                    pass
                break
            if (message.kind == SCHEMA) == bool(starts[SCHEMA]):
                raise LayoutError("it must begin with its only schema")
            if message.kind == SCHEMA:
                scan.columns = _check_names(name, message)
            starts[message.kind].append(message.start)
            scan.take(message)
    if not starts[SCHEMA]:
        raise CorpusError(
            f"{name}: cannot be read as Arrow: it has no schema; the file may be truncated; fetch it again"
        )
    if not ended:
        _log.warning(
            "%s: the stream has no end mark; if it was cut after record batch %d, later rows are missing",
            name,
            len(scan.groups) - 1,
        )
    return Layout(0, tuple(starts[DICTIONARY]), tuple(starts[BATCH]))


def _schema(message: Message) -> pa.Schema:
    if message.kind != SCHEMA:
        raise LayoutError("it does not begin with a schema")
    return pa.ipc.read_schema(pa.py_buffer(message.header))


def _check_names(name: str, message: Message) -> int:
    """Refuse columns of one name; how many columns there are."""
    columns = _schema(message).names
    if len(set(columns)) < len(columns):
        raise CorpusError(f"{name}: two columns have the same name; rename one")
    return len(columns)


def _refuse_expansion(facts: FileFacts, file: BinaryIO, message: Message) -> None:
    """Refuse a message whose compressed buffers would give too much."""
    given = plain_size(file, message)
    if given > facts.limits.plain_bytes(message.stop - message.body):
        raise CorpusError(
            f"{facts.name}: the message at byte {message.start:,} expands too much: {given / MIB:,.0f} MiB out of "
            f"{message.stop - message.body:,} bytes; if you trust it, raise --max-expansion"
        )


def _pieces(batch: pa.RecordBatch, begin: int, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The wanted rows of a record batch, some hundred at a time."""
    size = rows_of_batch(batch.nbytes, batch.num_rows)
    first, last = max(start - begin, 0), min(stop - begin, batch.num_rows)
    for at in range(first, last, size):
        yield begin + at, batch.slice(at, min(size, last - at))


def _opened(stack: ExitStack, facts: FileFacts) -> BinaryIO:
    """The plain bytes of a file, at any position."""
    with file_errors(facts.name):
        if facts.compression is None:
            return cast("BinaryIO", stack.enter_context(facts.place.open_table(facts.size)))
        plain = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        with peeking(facts.name, facts.place, facts.compression, size=facts.size, limits=facts.limits) as stream:
            shutil.copyfileobj(stream, plain, BUFFER_BYTES)
        return plain


@contextmanager
def _layout_errors(name: str) -> Iterator[None]:
    """Name the file, and the record batch where the error is."""
    try:
        with file_errors(name):
            yield
    except (LayoutError, struct.error, StopIteration) as error:
        reason = str(error) if isinstance(error, LayoutError) else "a header or the footer is damaged"
        raise CorpusError(
            f"{name}: cannot be read as Arrow: {reason}; the file may be damaged or truncated; fetch it again"
        ) from error


__all__ = ["ArrowFile", "open_arrow", "restored_arrow"]
