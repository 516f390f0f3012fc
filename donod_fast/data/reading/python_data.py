"""Anything that holds rows in Python → a source: lists, frames, tables, data sets, streams, generators, columns.

Other packages' types are recognised by name, so that none of them is imported here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pyarrow as pa

from donod_fast.data.reading.arrow_values import conformed
from donod_fast.data.reading.names_or_texts import are_texts
from donod_fast.data.reading.one_pass import OnePassRows
from donod_fast.data.reading.python_rows import (
    NAME,
    FrameRows,
    RowList,
    TableRows,
    frame_values,
    record_of,
    without_nulls,
)
from donod_fast.data.reading.source import Source
from donod_fast.data.reading.tables import BATCH_ROWS, DatasetRows, table_records
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError, InputError
from donod_fast.system.wording import plural

_ACCEPTED = (
    "a list of dicts or of texts, a generator of them, a frame of pandas or polars, an Arrow table, a datasets.Dataset "
    "or IterableDataset, or a dict of columns"
)
_END = object()
_STREAM = "__arrow_c_stream__"


class GivesArrow(Protocol):
    """What gives Arrow data: a table, a batch, a reader, a frame of polars, a relation of DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """See Arrow's PyCapsule interface."""


Data = str | PathLike[str] | Iterable[Any] | GivesArrow
"""What has rows: names of inputs, and everything that :func:`source_of` takes."""

_MESSAGE_KEYS = ({"role", "content"}, {"from", "value"})
"""Keys of a message, in the two spellings."""


def source_of(data: Any) -> Source | list[str]:
    """The rows of some data as a source; or names of inputs, where the data are those.

    Raises:
        InputError: the data hold no rows, or could mean two things; names the remedy.
        CorpusError: the rows cannot be read.
    """
    if _is(data, "datasets", "DatasetDict", "IterableDatasetDict"):
        _refuse_splits(data)
    if _is(data, "datasets", "IterableDataset"):
        return OnePassRows(_streamed(data))
    if not isinstance(data, Mapping) and hasattr(data, "_fingerprint") and hasattr(data, "__len__"):
        return DatasetRows(NAME, data, {"kind": "rows"})  # a datasets.Dataset
    if _is(data, "pandas", "DataFrame"):
        return _of_frame(data)
    if isinstance(data, pa.RecordBatchReader):
        return OnePassRows(table_records(_numbered(data), NAME))
    if _is(data, "polars", "LazyFrame"):
        raise InputError("rows is a LazyFrame, which is a query; give frame.collect()")
    if (values := _values(data)) is not None:
        return _of_items(values)
    if hasattr(data, _STREAM) or isinstance(data, pa.RecordBatch):
        return TableRows(_table(data))
    if isinstance(data, Mapping):
        return RowList(_rows_of_columns(data))
    if isinstance(data, Sequence) and not isinstance(data, str | bytes | bytearray):
        return _of_items(data)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | bytearray):
        return _of_stream(data)
    raise InputError(f"rows is a {_kind(data)}; give {_ACCEPTED}")


def _is(data: object, package: str, *names: str) -> bool:
    """Whether an object's class, or a base of it, is one of another package's."""
    return any(one.__name__ in names and one.__module__.partition(".")[0] == package for one in type(data).__mro__)


def _kind(data: object) -> str:
    package = type(data).__module__.partition(".")[0]
    return type(data).__name__ if package == "builtins" else f"{type(data).__name__} of {package}"


def _refuse_splits(data: Mapping[str, Any]) -> NoReturn:
    splits = [
        f"{name!r} ({plural(len(one), 'row')})" if hasattr(one, "__len__") else repr(name) for name, one in data.items()
    ]
    first = next(iter(data), "train")
    raise InputError(
        f"a {type(data).__name__} holds several data sets: {', '.join(splits) or 'none'}; name the split to score, as "
        f"data[{str(first)!r}]"
    )


def _of_frame(frame: Any) -> Source:
    names = [str(name) for name in frame.columns]
    _refuse_twice(names)
    return FrameRows(frame)


def _refuse_twice(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two columns have the name {twice!r}; rename one")


def _values(data: Any) -> Sequence[Any] | None:
    """The values of what is one column: a series of pandas or polars, an Arrow array, an array of NumPy."""
    if _is(data, "pandas", "Series", "Index"):
        return frame_values(data)
    if isinstance(data, pa.Array | pa.ChunkedArray):
        return [without_nulls(one) for one in data.to_pylist()]
    if _is(data, "polars", "Series"):
        return [without_nulls(one) for one in data.to_list()]
    if _is(data, "numpy", "ndarray"):
        if data.ndim != 1 or data.dtype.kind not in "OUT":
            raise InputError(f"rows is an array of shape {data.shape} of {data.dtype}; give {_ACCEPTED}")
        values: list[Any] = data.tolist()
        return values
    return None


def _table(data: Any) -> pa.Table:
    """Whatever gives Arrow data (polars, DuckDB, a batch, a table) as a table."""
    if _is(data, "polars", "DataFrame"):
        _refuse_objects(data)
    try:
        if isinstance(data, pa.RecordBatch):
            table = pa.Table.from_batches([data])
        else:
            table = data if isinstance(data, pa.Table) else pa.table(data)
    except Exception as error:  # each package has its own errors
        raise InputError(
            f"the {_kind(data)} cannot be read as an Arrow table: {str(error) or type(error).__name__}; give a list of "
            "dicts"
        ) from error
    _refuse_twice(table.column_names)
    return table


def _refuse_objects(frame: Any) -> None:
    """Refuse a frame of polars with Python objects, of which Arrow would get the addresses. Raises InputError."""
    for name, kind in frame.schema.items():
        if re.search(r"(?<!')\bObject\b", str(kind)):
            raise InputError(f"column {name!r} of the frame holds Python objects; give a list of dicts")


def _of_items(items: Sequence[Any]) -> Source | list[str]:
    if items and all(isinstance(one, str | Path) for one in items):
        if are_texts(items):
            return RowList([{"text": str(one)} for one in items])
        return [str(one) for one in items]
    return RowList(items)


def _of_stream(data: Iterable[Any]) -> Source | list[str]:
    if isinstance(data, io.IOBase) or hasattr(data, "readline"):
        raise InputError("rows is an open file; give its path")
    if isinstance(data, AbstractSet):
        raise InputError(f"rows is a {type(data).__name__}, which has no order; give a list")
    items = iter(data)
    first = next(items, _END)
    if first is _END:
        return RowList([])
    if isinstance(first, str | Path):
        return _of_items([first, *items])
    return OnePassRows(record_of(one, row, row) for row, one in enumerate(chain([first], items)))


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[int, pa.RecordBatch]]:
    row = 0
    for found in batches:
        for batch in found.to_batches() if isinstance(found, pa.Table) else [found]:
            for begin in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(begin, BATCH_ROWS)
                yield row, part
                row += part.num_rows


def _streamed(data: Any) -> Iterator[Record]:
    """The records of a ``datasets.IterableDataset``: of its Arrow data if their types are known."""
    try:
        if data.features is None:
            for row, item in enumerate(data.with_format(None)):
                yield record_of(without_nulls(item), row, row)
            return
        schema = data.features.arrow_schema
        tables = (conformed(table, schema) for table in data.with_format("arrow").iter(BATCH_ROWS))
        yield from table_records(_numbered(tables), NAME)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise CorpusError(f"the stream of rows cannot be read: {error}") from error


def _rows_of_columns(data: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """The rows of a dict of columns.

    Raises:
        InputError: it is a record, or holds data sets, or its columns are not of one length.
    """
    columns = {str(name): _column(value) for name, value in data.items()}
    if _is_record(data, columns):
        raise InputError("rows is one record; give a list of records, [record], or a dict of columns")
    if any(_is(one, package, kind) for one in data.values() for package, kind in _TABLES):
        _refuse_splits(data)
    if columns and all(column and isinstance(column[0], Mapping) for column in columns.values()):
        _refuse_splits(data)  # lists of records: a record is made of more than objects
    lengths = {name: len(column or ()) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        (first, few), (other, many) = min(lengths.items(), key=_second), max(lengths.items(), key=_second)
        raise InputError(
            f"the columns of a dict have one length, but {first!r} has {few} values and {other!r} {many}; give a "
            "list of records if this is one record"
        )
    rows = zip(*(column or () for column in columns.values()), strict=True)
    return [{name: one for name, one in zip(columns, row, strict=True) if one is not None} for row in rows]


_TABLES = (("datasets", "Dataset"), ("datasets", "IterableDataset"), ("pandas", "DataFrame"), ("polars", "DataFrame"))


def _second(item: tuple[str, int]) -> int:
    return item[1]


def _column(value: Any) -> Sequence[Any] | None:
    """The values of a column; None if it is no column."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return value if isinstance(value, list | tuple) else list(value)
    if _is(value, "numpy", "ndarray") or _is(value, "torch", "Tensor"):
        found: Any = value.tolist()
        return found if isinstance(found, list) else None
    return _values(value)


def _is_record(data: Mapping[Any, Any], columns: Mapping[str, Sequence[Any] | None]) -> bool:
    """Whether a mapping is a record: a value is no list, or is a conversation or the tokens of one record."""
    if not data:
        return False
    tables = [_is(value, package, kind) for value in data.values() for package, kind in _TABLES]
    if any(column is None for column in columns.values()):
        return not any(tables)
    tokens = columns.get("input_ids")
    if tokens and all(isinstance(one, int) for one in tokens):
        return True
    return any(
        isinstance(one, Mapping) and any(keys <= one.keys() for keys in _MESSAGE_KEYS)
        for column in columns.values()
        for one in list(column or ())[:1]
    )


__all__ = ["Data", "GivesArrow", "source_of"]
