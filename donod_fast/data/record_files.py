"""Write records to a file: JSON Lines (plain, .gz, .zst), Parquet or CSV.

A record that was read from JSON Lines is written back byte for byte. A file is complete or absent: it is written to a
temporary file next to the target, synced, then renamed.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from donod_fast.data.types import Record
from donod_fast.errors import InputError, StoreError
from donod_fast.system.files import atomic_writer, storage_error

JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
PARQUET = ".parquet"
CSV = ".csv"

_PARQUET_BATCH = 1024  # records converted to Arrow arrays at a time (one row group)


@contextmanager
def new_file(out: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that replaces ``out`` only when complete. A link is followed: its target is replaced."""
    _refuse_existing(out, overwrite)
    with atomic_writer(out.resolve() if out.is_symlink() else out) as file:
        yield file
        _refuse_existing(out, overwrite)  # it may have appeared meanwhile


def refuse_target(out: Path, overwrite: bool) -> None:
    """Refuse an invalid target of :func:`write_subset` before any work is done.

    Raises:
        InputError: its name has another suffix.
        StoreError: it exists, or is not a file.
    """
    if not out.name.lower().endswith((*JSON_LINES, PARQUET)):
        raise InputError(f"{out}: the name must end in {', '.join(JSON_LINES)} or {PARQUET}")
    _refuse_existing(out, overwrite)


def _refuse_existing(out: Path, overwrite: bool) -> None:
    try:
        there, regular = out.exists(), out.is_file()
    except OSError as error:
        raise storage_error(out, error) from error
    if there and not regular:
        raise StoreError(f"{out} is not a regular file; give the name of a file")
    if there and not overwrite:
        raise StoreError(f"{out} exists already; give another name, or add --overwrite")


@contextmanager
def compressing(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        stream: Any = file
        if name.endswith(".gz"):
            # No name and no time in the header: equal subsets give equal files
            stream = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
        elif name.endswith(".zst"):
            import pyarrow as pa

            # Arrow closes the stream that it writes to, but the file must still be synced
            own = stack.enter_context(os.fdopen(os.dup(file.fileno()), "wb"))
            stream = stack.enter_context(pa.CompressedOutputStream(pa.PythonFile(own, "w"), "zstd"))
        yield stream


def json_line(record: Record) -> bytes:
    """The record as one line: its original bytes if it has them, else compact JSON."""
    if record.raw is not None:
        return record.raw + b"\n"
    data = dict(record.data or {})
    try:
        return _to_json(data) + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        column = next((name for name, value in data.items() if not _fits_json({name: value})), "")
        raise InputError(
            f"row {record.row} ({record.file}, {record.place}), column {column!r}: JSON cannot hold its "
            f"value ({error}); write to a name that ends in {PARQUET}"
        ) from error


def _to_json(value: Any) -> bytes:
    options: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False, "default": _plain}
    try:
        return json.dumps(value, ensure_ascii=False, **options).encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: JSON can escape it, UTF-8 cannot hold it
        return json.dumps(value, ensure_ascii=True, **options).encode("ascii")


def _fits_json(value: Any) -> bool:
    try:
        _to_json(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _plain(value: Any) -> Any:
    """Convert a value that JSON lacks without loss; any other value is refused rather than changed."""
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # numpy's and torch's arrays and scalars
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


def write_parquet(stream: Callable[[], Iterator[Record]], file: BinaryIO) -> None:
    """Write in two passes: the first finds one type per column, the second writes row groups with those types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, Any] = {}
    for batch in _batches(stream()):
        for name in {name: None for record in batch for name in record.data or ()}:
            values = [(record.data or {}).get(name) for record in batch]
            with _naming_column(name):
                types[name] = _common_type(values, name, types.get(name))
    for name, kind in types.items():  # an object without keys is an Arrow type that Parquet lacks
        with _naming_column(name):
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([(name, kind)])).close()
    schema = pa.schema(list(types.items()))
    with pq.ParquetWriter(file, schema) as writer:
        for batch in _batches(stream()):
            columns = {}
            for name, kind in types.items():
                with _naming_column(name):
                    columns[name] = pa.array([(record.data or {}).get(name) for record in batch], kind)
            writer.write_table(pa.table(columns, schema=schema))


def _common_type(values: list[Any], name: str, known: Any) -> Any:
    """The Arrow type of ``values`` unified with that of the earlier batches (None for the first one)."""
    import pyarrow as pa

    found = pa.array(values).type
    if known is None:
        known = found
    # Arrow would convert text to bytes in a column of both
    bytes_here = pa.types.is_binary(found) or pa.types.is_binary(known)
    if bytes_here and (pa.types.is_string(known) or any(isinstance(value, str) for value in values)):
        raise TypeError("text in some rows, bytes in others")
    fields = [pa.schema([(name, kind)]) for kind in (known, found)]
    return pa.unify_schemas(fields, promote_options="permissive").field(name).type


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, _PARQUET_BATCH)):
        yield batch


@contextmanager
def _naming_column(name: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:  # Arrow's errors derive from these
        raise InputError(
            f"column {name!r}: its values cannot form one Parquet column ({str(error).splitlines()[0]}); "
            "write to a name that ends in .jsonl"
        ) from error


def write_csv(stream: Callable[[], Iterator[Record]], file: BinaryIO) -> None:
    """Write records as CSV in UTF-8, with a header row.

    Text, numbers and dates are written unchanged, ``true`` and ``false`` in lower case, null as an empty field. CSV
    has no lists and no objects: those become JSON text. Two passes: the first finds the columns.

    Args:
        stream: returns a new iterator over the records at each call.
        file: where the bytes go.

    Raises:
        InputError: a value that neither CSV nor JSON can hold; names row and column.
    """
    columns = list(dict.fromkeys(name for record in stream() for name in record.data or ()))
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text)
        writer.writerow(columns)
        for record in stream():
            data = record.data or {}
            writer.writerow([_csv_field(record, name, data.get(name)) for name in columns])
    finally:
        text.detach()  # writes what is buffered; the file stays open for the caller


def _csv_field(record: Record, column: str, value: Any) -> str:
    try:
        text = _csv_text(value)
        text.encode("utf-8")  # a lone surrogate has no UTF-8
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"row {record.row} ({record.file}, {record.place}), column {column!r}: CSV cannot hold its "
            f"value ({error}); write to a name that ends in {PARQUET}"
        ) from error
    return text


def _csv_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return _to_json(value).decode("utf-8")


__all__ = [
    "CSV",
    "JSON_LINES",
    "PARQUET",
    "compressing",
    "json_line",
    "new_file",
    "refuse_target",
    "write_csv",
    "write_parquet",
]
