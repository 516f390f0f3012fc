"""Rows that are in memory: lists of records, Arrow tables, and frames of pandas.

They are kept by reference, and converted as they are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from donod_fast.data.reading.arrow_values import python_values
from donod_fast.data.reading.canonical import canonical_json
from donod_fast.data.reading.record_hashes import row_hashes
from donod_fast.data.reading.source import Anywhere
from donod_fast.data.reading.tables import BATCH_ROWS, rows_of_batch, table_records
from donod_fast.data.types import Record

NAME = "<rows>"
"""The file name in records of rows that were given from Python."""


class _InMemory(Anywhere):
    """Base class of sources that cannot be opened again from their description."""

    rows: int
    digest: str

    def describe(self) -> dict[str, Any]:
        """Rows and hash; see :class:`Source`."""
        return {"kind": "rows", "name": NAME, "rows": self.rows, "digest": self.digest}


class RowList(_InMemory):
    """A sequence of mappings; an item that is none is a record with a problem."""

    def __init__(self, items: Sequence[Mapping[str, Any]]) -> None:
        self._items = items
        self.rows = len(items)
        self.digest = f"rows {values_digest(items)}"

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Yield rows as records; see :class:`Source`."""
        for row in range(start, stop):
            yield record_of(self._items[row], first_row + row, row)


class TableRows(_InMemory):
    """An Arrow table, whose values become those of a Parquet file's records."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._size = rows_of_batch(table.nbytes, table.num_rows)
        self.rows = table.num_rows
        content = hashlib.sha256()
        for _, batch in self._batches(0, self.rows):
            content.update(b"".join(row_hashes(batch)))
        self.digest = f"rows {content.hexdigest()}"

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Yield rows as records; see :class:`Source`."""
        return table_records(self._batches(start, stop), NAME, first_row)

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in self._table.slice(start, stop - start).to_batches(max_chunksize=self._size):
            yield start, batch
            start += batch.num_rows


class FrameRows(_InMemory):
    """A frame of pandas. Its index is no part of the records."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self._names = [str(name) for name in frame.columns]
        self.rows = len(frame)
        self.digest = f"rows {values_digest(self._mappings(0, self.rows))}"

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Yield rows as records; see :class:`Source`."""
        for row, item in enumerate(self._mappings(start, stop), start):
            yield record_of(item, first_row + row, row)

    def _mappings(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for begin in range(start, stop, BATCH_ROWS):
            part = self._frame.iloc[begin : min(begin + BATCH_ROWS, stop)]
            columns = [frame_values(part.iloc[:, at]) for at in range(len(self._names))]
            for values in zip(*columns, strict=True) if columns else [()] * len(part):
                yield {name: value for name, value in zip(self._names, values, strict=True) if value is not None}


def record_of(item: object, row: int, own_row: int) -> Record:
    """A record of a value from Python; with a problem if it is no mapping.

    Args:
        item: the value.
        row: its row in the corpus.
        own_row: its row in its source.
    """
    data = item if isinstance(item, Mapping) else None
    problem = None if data is not None else f"a {type(item).__name__}, not a mapping of columns to values"
    return Record(row, NAME, f"record {own_row}", data, None, problem)


def values_digest(items: Any) -> str:
    """Hash of the values of records."""
    content = hashlib.sha256()
    for item in items:
        content.update((canonical_json(item) or b"") + b"\n")
    return content.hexdigest()


def frame_values(series: Any) -> list[Any]:
    """The values of a column of pandas; what pandas has for a missing value (None, NaN, NA, NaT) is None."""
    values: list[Any] | None = None
    if series.dtype != object:  # objects are read as they are: Arrow would give those of a column one type
        try:
            array = pa.array(series, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError):
            array = None  # of a type that Arrow lacks
        if array is not None:
            chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
            values = [value for chunk in chunks for value in python_values(chunk)]
    return [without_nulls(value) for value in (series.tolist() if values is None else values)]


def without_nulls(value: Any) -> Any:
    """The value in plain Python types, as a table has it: null fields of objects are left out at every depth, nulls in
    lists stay. Arrays are lists; NaN and what pandas has for a missing value is None.
    """
    if hasattr(value, "tolist") and type(value).__module__.partition(".")[0] in ("numpy", "pandas"):
        value = value.tolist()
    if isinstance(value, Mapping):
        plain = {key: without_nulls(one) for key, one in value.items()}
        return {key: one for key, one in plain.items() if one is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(one) for one in value]
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if isinstance(value, float) and value != value else value


__all__ = ["NAME", "FrameRows", "RowList", "TableRows", "frame_values", "record_of", "values_digest", "without_nulls"]
