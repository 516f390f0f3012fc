"""Parquet files, datasets.Dataset objects, and plain lists of rows."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from donod_fast.errors import CorpusError
from donod_fast.reading.canonical import canonical_json
from donod_fast.reading.streams import (
    BUFFER_BYTES,
    FileFacts,
    changed_error,
    check_size,
    file_errors,
    peeking,
    scanning,
)
from donod_fast.samples import Record

BATCH_ROWS = 256
"""Rows that are Python objects at one time."""

PAGE_BY_PAGE: dict[str, Any] = {"buffer_size": BUFFER_BYTES, "pre_buffer": False}
"""Without these pyarrow loads a whole row group, which may be the whole file (5 MB instead of 200)."""

PYTHON_ROWS = "<rows>"
"""The file name in records of rows that were given from Python."""


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A Parquet file, streamed. A null column is left out of its record: where files of different
    columns were merged, null stands for a key that was not there.
    """

    facts: FileFacts
    rows: int

    @property
    def digest(self) -> str:
        """Hash of the kind and of the bytes as stored."""
        return f"parquet {self.facts.sha256}"

    def describe(self) -> dict[str, Any]:
        """What :func:`open_parquet` and a later check need, as JSON types."""
        return self.facts.describe("parquet", self.rows)

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream rows as records, row group by row group; see :class:`Source`."""
        if start >= stop:
            return
        check_size(self.facts)
        name = self.facts.name
        with ExitStack() as stack:
            file = _open_parquet(stack, name, self.facts.path, self.facts.compression)
            if file.metadata.num_rows != self.rows:
                raise changed_error(self.facts, f"{file.metadata.num_rows} rows, {self.rows} before")
            row = 0  # of the next row group's begin
            for group in range(file.num_row_groups):
                begin, row = row, row + file.metadata.row_group(group).num_rows
                if row <= start or begin >= stop:
                    continue
                with file_errors(f"{name}, record {begin} and after"):
                    for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                        skipped, wanted = max(start - begin, 0), max(stop - begin, 0)
                        rows = enumerate(_rows(batch.slice(skipped, wanted - skipped)), begin + skipped)
                        for place, (data, problem) in rows:
                            yield Record(first_row + place, name, f"record {place}", data, None, problem)
                        begin += batch.num_rows
                        if begin >= stop:
                            return


def open_parquet(name: str, path: Path, compression: str | None) -> ParquetFile:
    """Hash a Parquet file and read its row count.

    Raises:
        CorpusError: the file cannot be read, is no Parquet file, or names a column twice.
    """
    with scanning(name, path, compression) as scan:
        pass
    with ExitStack() as stack:
        file = _open_parquet(stack, name, path, compression)
        columns: list[str] = file.schema_arrow.names
        rows: int = file.metadata.num_rows
    if len(set(columns)) < len(columns):
        raise CorpusError(f"{name}: two columns have the same name; rename one")
    return ParquetFile(scan.facts, rows)


def _open_parquet(stack: ExitStack, name: str, path: Path, compression: str | None) -> Any:
    with file_errors(name):
        if compression is None:
            return stack.enter_context(pq.ParquetFile(path, **PAGE_BY_PAGE))
        # Parquet is read from its end, which a compressed stream does not allow.
        plain = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        with peeking(name, path, compression) as stream:
            shutil.copyfileobj(stream, plain)
        return stack.enter_context(pq.ParquetFile(plain, **PAGE_BY_PAGE))


def _rows(batch: Any) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    try:
        for row in batch.to_pylist():
            yield _present(row), None
    except (ValueError, OverflowError):  # a string that is not UTF-8, a date that Python cannot hold
        for position in range(batch.num_rows):
            try:
                yield _present(batch.slice(position, 1).to_pylist()[0]), None
            except (ValueError, OverflowError) as error:
                yield None, f"a value cannot be read: {error}"


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if value is not None}


@dataclass(frozen=True, slots=True)
class DatasetRows:
    """A ``datasets.Dataset``, with null columns left out of the records as in Parquet.

    Attributes:
        name: folder, hub id or ``PYTHON_ROWS``, for messages.
        dataset: the dataset; rows are read from it as plain Python values.
        origin: what its description says besides rows and fingerprint (JSON types, with ``kind``).
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
        plain = self.dataset.with_format(None)
        for begin in range(start, stop, BATCH_ROWS):
            end = min(begin + BATCH_ROWS, stop)
            try:
                columns: dict[str, list[Any]] = plain[begin:end]
            except Exception as error:  # whatever a feature's decoder raises
                raise CorpusError(f"{self.name}, records {begin} to {end - 1}: cannot be read: {error}") from error
            for row in range(begin, end):
                data = _present({column: values[row - begin] for column, values in columns.items()})
                yield Record(first_row + row, self.name, f"record {row}", data)


class RowList:
    """Rows given from Python as a sequence of mappings; kept by reference."""

    def __init__(self, items: Sequence[Mapping[str, Any]]) -> None:
        self._items = items
        self.rows = len(items)
        content = hashlib.sha256()
        for item in items:
            content.update((canonical_json(item) or b"") + b"\n")
        self.digest = f"rows {content.hexdigest()}"

    def describe(self) -> dict[str, Any]:
        """Rows and hash; such rows cannot be opened again from it."""
        return {"kind": "rows", "name": PYTHON_ROWS, "rows": self.rows, "digest": self.digest}

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Yield rows as records; see :class:`Source`."""
        for row in range(start, stop):
            item: object = self._items[row]
            data, problem = (item, None) if isinstance(item, Mapping) else (None, _no_mapping(item))
            yield Record(first_row + row, PYTHON_ROWS, f"record {row}", data, None, problem)


def _no_mapping(item: object) -> str:
    return f"not a mapping of columns to values but a {type(item).__name__}"
