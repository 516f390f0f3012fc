"""Write records as text: JSON Lines (plain, .gz, .zst), a JSON array, or CSV.

A record that has its own text is written with it. A file is complete or absent: it is written to a temporary file next
to the target, synced, then renamed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from donod_fast.data.json_values import fits_json, to_json
from donod_fast.data.types import Record
from donod_fast.errors import InputError, StoreError
from donod_fast.system.files import atomic_writer, storage_error

JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
JSON = ".json"
PARQUET = ".parquet"
CSV = ".csv"
TSV = ".tsv"


@contextmanager
def new_file(out: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that replaces ``out`` only when complete. A link is followed: its target is replaced."""
    refuse_existing(out, overwrite)
    with atomic_writer(out.resolve() if out.is_symlink() else out) as file:
        yield file
        refuse_existing(out, overwrite)  # it may have appeared meanwhile


def refuse_inputs(inputs: Iterable[Mapping[str, Any]], out: Path) -> None:
    """Refuse to replace an input of a corpus, or a file in one that is a folder, whatever may be overwritten.

    Args:
        inputs: the entries of the inputs, as a manifest has them.
        out: the file or folder to write.

    Raises:
        StoreError: it is an input.
    """
    target = out.resolve()
    for entry in inputs:
        path = None if entry.get("path") is None else Path(entry["path"]).resolve()
        if path is not None and target in path.parents:
            raise StoreError(f"{out} holds an input of the corpus; write to another name")
        if path == target or (path in target.parents and target.exists()):
            raise StoreError(f"{out} is one of the inputs of the corpus; write to another name")


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Refuse to write where something is, before any work is done.

    Raises:
        StoreError: a file is there and may not be replaced, or ``out`` is not a file.
    """
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
    """The record as one line: its own JSON text if it has one, else compact JSON."""
    return json_text(record) + b"\n"


def json_text(record: Record) -> bytes:
    """The record's own JSON text if it has one, else compact JSON, without a line end.

    Raises:
        InputError: a value from Python that JSON cannot hold; names row and column.
    """
    if record.json_text is not None:
        return record.json_text
    data = dict(record.data or {})
    try:
        return to_json(data)
    except (TypeError, ValueError, RecursionError) as error:
        column = next((name for name, value in data.items() if not fits_json({name: value})), "")
        raise InputError(
            f"row {record.row} ({record.file}, {record.place}), column {column!r}: JSON cannot hold its "
            f"value ({error}); give plain values"
        ) from error


def write_json_array(texts: Iterable[bytes], file: BinaryIO) -> None:
    """Write JSON texts as one array, one record per line."""
    before = b"[\n"
    for text in texts:
        file.write(before + text)
        before = b",\n"
    file.write(b"\n]\n" if before == b",\n" else b"[]\n")


def write_own_rows(header: bytes, rows: Iterable[bytes], file: BinaryIO) -> None:
    """Write rows of CSV or TSV files as they are in the files.

    Args:
        header: the bytes of the header row, with its line end.
        rows: the bytes of the rows. A row without a line end, the last one of a file, gets that of the header.
        file: where the bytes go.
    """
    line_end = csv_line_end(header)
    for row in chain((header,), rows):
        file.write(row if row.endswith(b"\n") else row + line_end)


def csv_line_end(header: bytes) -> bytes:
    """The line end of a header row; a line feed if it has none."""
    return b"\r\n" if header.endswith(b"\r\n") else b"\n"


def write_csv(stream: Callable[[], Iterator[Record]], file: BinaryIO) -> None:
    """Write records as CSV in UTF-8, with a header row.

    Text, numbers and dates are written unchanged, ``true`` and ``false`` in lower case, null as an empty field. CSV
    has no lists and no objects: those become JSON text, and bytes base64 text. Two passes: the first finds the columns.

    Args:
        stream: returns a new iterator over the records at each call.
        file: where the bytes go.

    Raises:
        InputError: a value that neither CSV nor JSON can hold; names row and column.
    """
    columns: dict[str, None] = {}
    for record in stream():
        for name in record.data or ():
            if name not in columns:
                _check_csv_name(record, name)
                columns[name] = None
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text)
        writer.writerow(columns)
        for record in stream():
            data = record.data or {}
            writer.writerow([_csv_field(record, name, data.get(name)) for name in columns])
    finally:
        text.detach()  # writes what is buffered; the file stays open for the caller


def _check_csv_name(record: Record, name: object) -> None:
    try:
        str(name).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"row {record.row} ({record.file}, {record.place}): CSV cannot hold the name of the column {name!r}, "
            f"a lone surrogate; write to a name that ends in {JSON_LINES[0]}"
        ) from error


def _csv_field(record: Record, column: str, value: Any) -> str:
    try:
        text = _csv_text(value)
        text.encode("utf-8")  # a lone surrogate has no UTF-8
    except (TypeError, ValueError, RecursionError) as error:
        remedy = (
            f"write to a name that ends in {JSON_LINES[0]} or {PARQUET}" if fits_json(value) else "give plain values"
        )
        raise InputError(
            f"row {record.row} ({record.file}, {record.place}), column {column!r}: CSV cannot hold its "
            f"value ({error}); {remedy}"
        ) from error
    return text


def _csv_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    text = to_json(value).decode("utf-8")
    return json.loads(text) if text.startswith('"') else text


__all__ = [
    "CSV",
    "JSON",
    "JSON_LINES",
    "PARQUET",
    "TSV",
    "compressing",
    "csv_line_end",
    "json_line",
    "json_text",
    "new_file",
    "refuse_existing",
    "refuse_inputs",
    "write_csv",
    "write_json_array",
    "write_own_rows",
]
