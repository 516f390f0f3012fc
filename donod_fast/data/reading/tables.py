"""Parquet files and datasets.Dataset objects."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from donod_fast.data.reading.arrow_values import conformed, python_rows
from donod_fast.data.reading.parquet_pages import bytes_of_row
from donod_fast.data.reading.record_hashes import row_hashes
from donod_fast.data.reading.source import Anywhere, Unmarked
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
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.system.limits import FREE_ROWS, MIB, PAGE_BYTES, ReadLimits
from donod_fast.system.places import LocalPlace, Place
from donod_fast.system.wording import plural

BATCH_ROWS = 256
"""Rows that are converted to Python objects at a time; fewer if they are long."""

BATCH_BYTES = 1 << 26
"""Values of a batch, by the mean size of a row."""

PAGE_BY_PAGE: dict[str, Any] = {
    "buffer_size": BUFFER_BYTES,
    "pre_buffer": False,
    "page_checksum_verification": True,
}
"""Without the first two options pyarrow loads a whole row group, which may be the whole file (5 MB instead of 200).
Checksums are verified where the pages have them."""

_UNREADABLE = (ValueError, OverflowError, KeyError)
"""Errors of text that is not UTF-8, of dates outside Python's range, and of unknown time zones."""


@dataclass(frozen=True, slots=True)
class ParquetFile(Unmarked):
    """A Parquet file, streamed. Null columns and null fields of structs are left out of the records: Arrow adds such
    nulls where rows have different keys, and they cannot be told from nulls that were written.

    Attributes:
        facts: the file's state when it was opened. Unless it is compressed as a whole, only the footer was read
            and hashed: it tells where the rows are, but does not detect changed values. The stamp does.
        rows: number of rows.
        groups: rows of each row group; empty if not read yet.
    """

    facts: FileFacts
    rows: int
    groups: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """The file as the user gave it."""
        return self.facts.name

    @property
    def digest(self) -> str:
        """Hash of the kind, the footer and the size, or of the bytes as stored if it is compressed."""
        return f"parquet {self.facts.digest}"

    def describe(self) -> dict[str, Any]:
        """The facts that :func:`open_parquet` and a later check need, as JSON types."""
        return {**self.facts.describe("parquet", self.rows), "row_groups": list(self.groups)}

    def row_groups(self) -> Sequence[int] | None:
        """Rows of each row group: stored when the file was opened, or read from the footer of a known file."""
        if self.groups or not self.rows:
            return self.groups
        with unchanged(self.facts), ExitStack() as stack:
            return _groups(_open_parquet(stack, self.facts).metadata)

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream rows as records, row group by row group; see :class:`Source`."""
        return _records(self, first_row, start, stop)

    def arrow_schema(self) -> pa.Schema:
        """The schema of the file, with all metadata.

        Raises:
            CorpusError: the file cannot be read, or has changed.
        """
        with unchanged(self.facts), ExitStack() as stack:
            return _open_parquet(stack, self.facts).schema_arrow

    def arrow_batches(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Stream the rows ``start <= i < stop`` as Arrow batches of at most ``BATCH_ROWS``, row group by row group.

        Yields:
            The number of the first row of a batch, within this file, and the batch.

        Raises:
            CorpusError: the file cannot be read, or has changed.
        """
        if start >= stop:
            return
        with unchanged(self.facts), ExitStack() as stack:
            file = _open_parquet(stack, self.facts)
            plain = _local_file(stack, self.facts)
            if file.metadata.num_rows != self.rows:
                raise changed_error(self.facts, f"{plural(file.metadata.num_rows, 'row')}, {self.rows} before")
            row = 0  # first row of the next row group
            for group, group_rows in enumerate(_groups(file.metadata)):
                begin, row = row, row + group_rows
                if row <= start or begin >= stop:
                    continue
                place = f"{self.facts.name}, record {begin} and after"
                metadata, given = file.metadata.row_group(group), 0
                with file_errors(place):
                    size = self._batch_rows(place, metadata, plain, group_rows)
                    for batch in file.iter_batches(batch_size=size, row_groups=[group]):
                        given += batch.nbytes
                        _check_expansion(place, given, _stored_bytes(metadata), self.facts.limits)
                        skipped, wanted = max(start - begin, 0), max(stop - begin, 0)
                        if (part := batch.slice(skipped, wanted - skipped)).num_rows:
                            yield begin + skipped, part
                        begin += batch.num_rows
                        if begin >= stop:
                            return
                if begin != row:  # a damaged page header ends a row group early, without an error
                    what = f"{plural(group_rows - row + begin, 'row')} in row group {group}, {group_rows} by its footer"
                    raise CorpusError(f"{self.facts.name}: is damaged: {what}; restore it from a copy")

    def _batch_rows(self, place: str, group: Any, file: BinaryIO | None, rows: int) -> int:
        """Rows of a batch of a row group, after a check of its pages where they are on this machine."""
        size = rows_of_batch(group.total_byte_size, rows)
        if file is None:
            return size
        return max(1, min(size, PAGE_BYTES // max(bytes_of_row(place, file, group, self.facts.limits), 1)))


def _stored_bytes(group: Any) -> int:
    return sum(max(group.column(at).total_compressed_size, 0) for at in range(group.num_columns))


def _check_expansion(place: str, given: int, stored: int, limits: ReadLimits) -> None:
    """Refuse a row group that gives too much, as by one long value of a dictionary that every row names."""
    if given > limits.plain_bytes(stored):
        raise CorpusError(
            f"{place}: expands too much: {given / MIB:,.0f} MiB out of {stored:,} bytes; if you trust it, raise "
            "--max-expansion"
        )


def rows_of_batch(size: int, rows: int) -> int:
    """Rows of a batch, given the bytes of a table and its rows."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))


def open_parquet(
    name: str, place: Place, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT
) -> ParquetFile:
    """Read and hash a Parquet file's footer, or the whole file if it is compressed as a whole.

    Raises:
        CorpusError: the file cannot be read, is not a Parquet file, has two columns of one name, or its footer tells of
            more rows than the file can have.
    """
    with ExitStack() as stack:
        if compression is None:
            with file_errors(name):
                stat = place.settled_stat()
                stream: Any = stack.enter_context(place.open_table(stat.size))
                metadata = pq.ParquetFile(stream).metadata
                digest = _footer_hash(stream, stat.size)
                facts = FileFacts(name, place, None, stat.size, stat.stamp, digest, True, limits=limits)
            refuse_moving(name, place, stat, stream.seek(0, io.SEEK_END))
        else:
            stream = stack.enter_context(tempfile.TemporaryFile())
            with scanning(name, place, compression, limits) as scan:
                shutil.copyfileobj(scan.stream, stream)
            facts = scan.facts
            with file_errors(name):
                metadata = pq.ParquetFile(stream).metadata
        with file_errors(name):
            columns: list[str] = metadata.schema.to_arrow_schema().names
    _check_rows(name, metadata, facts)
    if len(set(columns)) < len(columns):
        raise CorpusError(f"{name}: two columns have the same name; rename one")
    return ParquetFile(facts, metadata.num_rows, _groups(metadata))


def _check_rows(name: str, metadata: Any, facts: FileFacts) -> None:
    """Refuse a footer whose numbers of rows cannot be true."""
    groups = _groups(metadata)
    if sum(groups) != metadata.num_rows or min(groups, default=0) < 0:
        raise CorpusError(
            f"{name}: the footer tells of {metadata.num_rows:,} rows, but its row groups have {sum(groups):,}; "
            "the file is damaged: fetch it again"
        )
    if metadata.num_rows > FREE_ROWS + facts.limits.expansion * facts.size:
        raise CorpusError(
            f"{name}: {metadata.num_rows:,} rows in {facts.size:,} bytes are too many; if you trust it, raise "
            "--max-expansion"
        )


def _footer_hash(stream: Any, size: int) -> str:
    """Hash the end of a Parquet file: the footer, its length in four bytes, and the four magic bytes."""
    stream.seek(max(size - 8, 0))
    length = int.from_bytes(stream.read(4), "little")
    stream.seek(max(size - 8 - length, 0))
    return hashlib.sha256(stream.read(length + 8)).hexdigest()


def _groups(metadata: Any) -> tuple[int, ...]:
    return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


def _open_parquet(stack: ExitStack, facts: FileFacts) -> Any:
    name, place = facts.name, facts.place
    with file_errors(name):
        if facts.compression is not None:
            # Parquet is read from its end, which a compressed stream does not allow.
            plain = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            with peeking(name, place, facts.compression, size=facts.size, limits=facts.limits) as stream:
                shutil.copyfileobj(stream, plain)
            return stack.enter_context(pq.ParquetFile(plain, **PAGE_BY_PAGE))
        # pyarrow opens local files itself and then reads without holding the GIL.
        file = stack.enter_context(place.open_table(facts.size))
        if _footer_hash(file, facts.size) != facts.sha256:
            raise changed_error(facts, "same size and time, but another footer")
        file.seek(0)
        source = place.path if isinstance(place, LocalPlace) else file
        return stack.enter_context(pq.ParquetFile(source, **PAGE_BY_PAGE))


def _local_file(stack: ExitStack, facts: FileFacts) -> BinaryIO | None:
    """The file's bytes if they are on this machine, where looking into it costs nothing."""
    if facts.compression is not None or not isinstance(facts.place, LocalPlace):
        return None
    with file_errors(facts.name):
        return stack.enter_context(facts.place.path.open("rb"))


def _records(source: ParquetFile | DatasetRows, first_row: int, start: int, stop: int) -> Iterator[Record]:
    limits = source.facts.limits if isinstance(source, ParquetFile) else ReadLimits.DEFAULT
    return table_records(source.arrow_batches(start, stop), source.name, first_row, limits)


def table_records(
    batches: Iterable[tuple[int, pa.RecordBatch]],
    name: str,
    first_row: int = 0,
    limits: ReadLimits = ReadLimits.DEFAULT,
) -> Iterator[Record]:
    """The rows of Arrow batches as records.

    Args:
        batches: the number of the first row of a batch, within its source, and the batch.
        name: of the source.
        first_row: the corpus row of the source's row 0.
        limits: a larger row is a record with a problem.
    """
    for begin, batch in batches:
        for row, ((data, problem), own) in enumerate(zip(_rows(batch, limits), row_hashes(batch), strict=True), begin):
            yield Record(first_row + row, name, f"record {row}", data, None, problem, hash=own)


def _rows(batch: pa.RecordBatch, limits: ReadLimits) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    if batch.nbytes > limits.record_bytes:
        for position in range(batch.num_rows):
            one = batch.slice(position, 1)
            if one.nbytes > limits.record_bytes:
                yield None, f"the row has {one.nbytes:,} bytes, {limits.too_large}"
            else:
                yield from _converted(one)
        return
    yield from _converted(batch)


def _converted(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    try:
        for row in python_rows(batch):
            yield row, None
    except _UNREADABLE:
        for position in range(batch.num_rows):
            try:
                yield python_rows(batch.slice(position, 1))[0], None
            except _UNREADABLE as error:
                yield None, f"a value cannot be read: {error}"


@dataclass(frozen=True, slots=True)
class DatasetRows(Anywhere):
    """A ``datasets.Dataset``, with nulls left out of the records as in Parquet.

    Attributes:
        name: folder, hub id or ``python_rows.NAME``, for messages.
        dataset: the dataset; rows are read from its Arrow table, and converted as those of Parquet.
        origin: its description except rows and fingerprint (JSON types, with ``kind``).
    """

    name: str
    dataset: Any = field(repr=False)
    origin: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return len(self.dataset)

    @property
    def digest(self) -> str:
        """The dataset's own fingerprint and its length."""
        return f"dataset {self.dataset._fingerprint} {self.rows}"

    def describe(self) -> dict[str, Any]:
        """Origin, rows and fingerprint as JSON types."""
        return {**self.origin, "name": self.name, "rows": self.rows, "digest": self.digest}

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream rows as records; see :class:`Source`."""
        return _records(self, first_row, start, stop)

    def arrow_schema(self) -> pa.Schema:
        """The schema of the features, with the metadata that ``datasets`` reads them from."""
        return self.dataset.features.arrow_schema

    def arrow_batches(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Stream rows as Arrow batches; see :meth:`ParquetFile.arrow_batches`. Images and audio stay encoded.

        Raises:
            CorpusError: the rows cannot be read.
        """
        stored, schema = self.dataset.with_format("arrow"), self.arrow_schema()
        size = rows_of_batch(self.dataset.data.nbytes, self.dataset.data.num_rows)
        for begin in range(start, stop, size):
            end = min(begin + size, stop)
            try:
                found = stored[begin:end]
                found.validate(full=True)  # a damaged file may tell of lengths beyond its end
                table = conformed(found, schema).combine_chunks()
            except Exception as error:  # datasets lets errors of pyarrow and of its own through
                raise CorpusError(f"{self.name}, records {begin} to {end - 1}: cannot be read: {error}") from error
            for batch in table.to_batches():
                yield begin, batch
                begin += batch.num_rows
