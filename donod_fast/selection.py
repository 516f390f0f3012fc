"""Chosen rows → a file of the original records, unchanged: JSON Lines (plain, .gz, .zst) or Parquet.

A record that came from JSON Lines is written back byte by byte. The file is complete or absent: it is
written under another name beside the target, synced, then renamed.
"""

from __future__ import annotations

import datetime
import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeVar

from torch import Tensor

from donod_fast.big_ranking.row_set import RowSet
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.files import atomic_writer, storage_error
from donod_fast.samples import Record

JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
PARQUET = ".parquet"

_T = TypeVar("_T")

_PARQUET_BATCH = 1024  # records that are Arrow arrays (one row group) at one time


class Records(Protocol):
    """What is asked of a corpus here; ``donod_fast.reading.Corpus`` is one."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Stream the records of ``start <= row < stop`` in order."""

    def describe(self) -> dict[str, Any]:
        """``inputs``: a list of dicts, with the absolute ``path`` of each input that is a file."""


def write_subset(
    corpus: Records,
    rows: Sequence[int] | Tensor | RowSet,
    out: Path,
    *,
    order: Literal["input", "best"] = "input",
    overwrite: bool = False,
) -> int:
    """Write the records of some rows to ``out`` and return how many they are.

    JSON Lines: a record that came from JSON Lines keeps its bytes. Others become compact JSON in UTF-8
    (escaped where a lone surrogate has no UTF-8); dates and times become ISO 8601 strings,
    arrays lists. Parquet: the union of the records' columns in order of appearance, null where a record
    lacks one; a mixture of integers and floats in a column becomes floats.

    Args:
        corpus: where the records come from. It is streamed once, for Parquet twice (the types of the
            columns are known only after all records).
        rows: row numbers, each once, best first: (k,) ints or an int64 tensor; or a set, which takes one bit for
            each row of the corpus and has no order of its own.
        out: ends in ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst`` or ``.parquet``.
        order: ``"input"`` keeps the order of the corpus, in flat memory; ``"best"`` that of ``rows``,
            which holds the chosen records in memory.
        overwrite: replace a file that exists (never one of the corpus's own).

    Raises:
        InputError: no rows, a row twice, a set in the order ``"best"``, another suffix, or a value that the
            format cannot hold (the message names row and column, or the column).
        CorpusError: a row that the corpus does not have or cannot read.
        StoreError: the target exists, is one of the inputs, or cannot be written.
    """
    if order not in ("input", "best"):
        raise InputError(f'order must be "input" or "best", got {order!r}')
    name = out.name.lower()
    if not name.endswith((*JSON_LINES, PARQUET)):
        raise InputError(f"{out}: the name must end in {', '.join(JSON_LINES)} or {PARQUET}")
    numbers: list[int] | RowSet = (
        _checked_set(rows, corpus.rows, order) if isinstance(rows, RowSet) else _checked_rows(rows, corpus.rows)
    )
    for entry in corpus.describe().get("inputs", ()):
        if entry.get("path") is not None and Path(entry["path"]).resolve() == out.resolve():
            raise StoreError(f"{out} is one of the inputs of the corpus; write the subset elsewhere")

    with _new_file(out, overwrite) as file:
        if name.endswith(PARQUET):
            held: list[Record] | None = None
            if isinstance(numbers, list) and order == "best":
                held = _in_order_of(numbers, ((record.row, record) for record in _chosen(corpus, numbers)))
            # streamed anew for each of the two passes, unless they are held anyhow
            write_parquet(lambda: iter(held) if held is not None else _chosen(corpus, numbers), file)
        else:
            lines = ((record.row, _json_line(record)) for record in _chosen(corpus, numbers))
            in_order = isinstance(numbers, RowSet) or order == "input"
            ordered = (line for _, line in lines) if in_order else _in_order_of(numbers, lines)
            with _compressing(file, name) as stream:
                for line in ordered:
                    stream.write(line)
    return len(numbers)


@contextmanager
def _new_file(out: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that becomes ``out`` only when whole. A link is followed: what it points at is replaced."""
    _refuse_existing(out, overwrite)
    with atomic_writer(out.resolve() if out.is_symlink() else out) as file:
        yield file
        _refuse_existing(out, overwrite)  # it may have appeared meanwhile


def refuse_target(out: Path, overwrite: bool) -> None:
    """Refuse a target of :func:`write_subset` that can be told beforehand to be none.

    Raises:
        InputError: its name has another suffix.
        StoreError: it exists, or is no file.
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
        raise StoreError(f"{out} exists already; give another name, or ask to overwrite it")


def _checked_rows(rows: Sequence[int] | Tensor, available: int) -> list[int]:
    numbers = [int(row) for row in (rows.tolist() if isinstance(rows, Tensor) else rows)]
    if not numbers:
        raise InputError("no rows were chosen, so there is nothing to write")
    if len(set(numbers)) < len(numbers):
        raise InputError("a row was chosen twice; give each row number once")
    for row in (min(numbers), max(numbers)):
        if not 0 <= row < available:
            raise CorpusError(f"row {row} is not in the corpus, which has {available} rows")
    return numbers


def _checked_set(rows: RowSet, available: int, order: str) -> RowSet:
    if order == "best":
        raise InputError('a set of rows has no order; give the rows as a list, or order="input"')
    last = rows.last
    if last < 0:
        raise InputError("no rows were chosen, so there is nothing to write")
    if last >= available:
        raise CorpusError(f"row {last} is not in the corpus, which has {available} rows")
    return rows


def _chosen(corpus: Records, rows: list[int] | RowSet) -> Iterator[Record]:
    """The records of ``rows``, in input order, in one pass over the corpus."""
    rising, last = (rows, rows.last) if isinstance(rows, RowSet) else (sorted(rows), max(rows))
    wanted = iter(rising)
    row = next(wanted)
    for record in corpus.records(row, last + 1):
        if record.row != row:
            continue
        if record.data is None:
            raise CorpusError(f"{record.file}, {record.place}: cannot be read: {record.problem}")
        yield record
        row = next(wanted, -1)
    if row != -1:
        raise CorpusError(f"row {row} is missing from the corpus; it has changed since it was scored")


def _in_order_of(numbers: Iterable[int], numbered: Iterable[tuple[int, _T]]) -> list[_T]:
    by_row = dict(numbered)
    return [by_row[row] for row in numbers]


@contextmanager
def _compressing(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        stream: Any = file
        if name.endswith(".gz"):
            # No name and no time in the header: equal subsets are equal files
            stream = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
        elif name.endswith(".zst"):
            import pyarrow as pa

            # Arrow closes what it writes to; the file itself is still to be synced
            own = stack.enter_context(os.fdopen(os.dup(file.fileno()), "wb"))
            stream = stack.enter_context(pa.CompressedOutputStream(pa.PythonFile(own, "w"), "zstd"))
        yield stream


def _json_line(record: Record) -> bytes:
    """The record as one line: its own bytes where it has them, else compact JSON."""
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
    """What JSON lacks, in a form that says the same; the rest is refused rather than bent."""
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # numpy's and torch's arrays and scalars
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def write_parquet(stream: Callable[[], Iterator[Record]], file: BinaryIO) -> None:
    """Two passes: the first finds one type a column, the second writes row groups in those types."""
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
    """The Arrow type of ``values`` joined with that of the batches before (None for the first one)."""
    import pyarrow as pa

    found = pa.array(values).type
    if known is None:
        known = found
    # Arrow would turn text among bytes into bytes
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
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:  # Arrow's derive from these
        raise InputError(
            f"column {name!r}: its values cannot form one Parquet column ({str(error).splitlines()[0]}); "
            "write to a name that ends in .jsonl"
        ) from error
