"""Write records as one Parquet file: typed columns where a type holds the values exactly, else JSON text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from donod_fast.data.column_types import ColumnShape
from donod_fast.data.grouping import grouped
from donod_fast.data.json_values import fits_json, to_json
from donod_fast.data.reading.arrow_values import EXTENSION, JSON_TYPE
from donod_fast.data.types import Record
from donod_fast.errors import InputError

_BATCH_ROWS = 1024  # records converted to Arrow arrays at a time at most (one row group)


def write_parquet(stream: Callable[[], Iterator[Record]], file: BinaryIO) -> tuple[str, ...]:
    """Write records in two passes: the first finds the types of the columns, the second writes row groups.

    Columns are in order of appearance. A column that no Arrow type holds exactly becomes JSON text (Arrow's extension
    type ``arrow.json``, which our reader and ``datasets`` decode): text in one row and a number in another, integers
    past 64 bits, nulls that were written inside objects, keys in several orders, keys that only some of the objects
    inside other objects have.

    Args:
        stream: returns a new iterator over the same records at each call.
        file: where the bytes go; it can be rewound.

    Returns:
        The names of the columns of JSON text.

    Raises:
        InputError: a value from Python that JSON cannot hold either; names row and column.
    """
    shapes: dict[str, ColumnShape] = {}
    for record in stream():
        for name, value in (record.data or {}).items():
            if name not in shapes:
                _check_name(record, name)
                shapes[name] = ColumnShape()
            shapes[name].add(value)
    types = {name: shape.arrow_type() for name, shape in shapes.items()}
    types = {name: kind if kind is not None and _fits_parquet(kind) else None for name, kind in types.items()}
    start = file.tell()
    while (failed := _write(stream, file, types)) is not None:
        types[failed] = None  # Arrow refuses a value of this type; JSON text holds it
        file.seek(start)
        file.truncate()
    return tuple(name for name, kind in types.items() if kind is None)


def _check_name(record: Record, name: object) -> None:
    try:
        str(name).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"row {record.row} ({record.file}, {record.place}): Parquet cannot hold the name of the column {name!r}, "
            "a lone surrogate; write to a name that ends in .jsonl"
        ) from error


def _fits_parquet(kind: pa.DataType) -> bool:
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([("column", kind)])).close()
    except (pa.ArrowException, NotImplementedError):
        return False
    return True


def _write(stream: Callable[[], Iterator[Record]], file: BinaryIO, types: dict[str, pa.DataType | None]) -> str | None:
    """Write all records; None, or the name of a column whose type does not hold its values."""
    schema = pa.schema([_json_field(name) if kind is None else pa.field(name, kind) for name, kind in types.items()])
    with pq.ParquetWriter(file, schema) as writer:
        for batch in _batches(stream()):
            columns = []
            for name, field in zip(types, schema, strict=True):
                kind = types[name]
                if kind is None:
                    texts = pa.array([_json_text(record, name) for record in batch], pa.string())
                    is_extension = isinstance(field.type, pa.BaseExtensionType)
                    columns.append(pa.ExtensionArray.from_storage(field.type, texts) if is_extension else texts)
                    continue
                try:
                    columns.append(pa.array([(record.data or {}).get(name) for record in batch], kind))
                except (pa.ArrowException, TypeError, ValueError, OverflowError):
                    return name
            writer.write_table(pa.table(columns, schema=schema))
    return None


def _json_field(name: str) -> pa.Field:
    if hasattr(pa, "json_"):
        return pa.field(name, pa.json_())
    return pa.field(name, pa.string(), metadata={EXTENSION: JSON_TYPE.encode(), b"ARROW:extension:metadata": b""})


def _json_text(record: Record, name: str) -> str | None:
    value = (record.data or {}).get(name)
    if value is None:
        return None
    if not fits_json(value):
        raise InputError(
            f"row {record.row} ({record.file}, {record.place}), column {name!r}: neither Parquet nor JSON can hold "
            f"its value, a {type(value).__name__}; give plain values"
        )
    return to_json(value).decode("utf-8")


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    return grouped(records, _BATCH_ROWS)


__all__ = ["write_parquet"]
