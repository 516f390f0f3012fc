"""Chosen rows → a file of the original records, unchanged.

What has its own text keeps it: lines of JSON Lines, elements of JSON arrays, rows of CSV and TSV. Rows of Parquet files
and datasets keep schema and values. The file is complete or absent: it is written under another name next to the
target, synced, then renamed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TypeVar

from torch import Tensor

from donod_fast.data.own_targets import Chosen, own_target
from donod_fast.data.record_files import (
    CSV,
    JSON,
    PARQUET,
    TSV,
    compressing,
    json_line,
    json_text,
    new_file,
    refuse_inputs,
    write_json_array,
    write_own_rows,
)
from donod_fast.data.source_tables import (
    arrow_sources,
    batch_check,
    chosen_batches,
    common_schema,
    in_order,
    write_parquet_batches,
)
from donod_fast.data.targets import common_header, refuse_suffix, sources_of
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError, InputError
from donod_fast.selection.out_of_core.row_set import RowSet
from donod_fast.selection.settings import check_row_order
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

_T = TypeVar("_T")


class Records(Protocol):
    """The part of a corpus that is used here; ``donod_fast.data.reading.Corpus`` implements it.

    If it has ``sources``, its inputs, then tables of them are written without a detour over Python values; if it has
    ``check_batch``, these rows are checked with it (the corpus of a scores folder compares them with what was scored).
    """

    @property
    def rows(self) -> int:
        """Number of rows."""

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Stream the records of ``start <= row < stop`` in order."""

    def describe(self) -> dict[str, Any]:
        """``inputs``: a list of dicts, with the absolute ``path`` of each input that is a file."""


@dataclass(frozen=True, slots=True)
class Subset:
    """What was written.

    Attributes:
        rows: number of rows.
        json_columns: columns of a Parquet file that are JSON text, because no Arrow type holds their values exactly.
    """

    rows: int
    json_columns: tuple[str, ...] = ()


def write_subset(
    corpus: Records,
    rows: Sequence[int] | Tensor | RowSet,
    out: Path,
    *,
    order: Literal["input", "best"] = "input",
    overwrite: bool = False,
) -> int:
    """Write the records of some rows to ``out`` and return their number; see :func:`subset_file`."""
    return subset_file(corpus, rows, out, order=order, overwrite=overwrite).rows


def subset_file(
    corpus: Records,
    rows: Sequence[int] | Tensor | RowSet,
    out: Path,
    *,
    order: Literal["input", "best"] = "input",
    overwrite: bool = False,
) -> Subset:
    """Write the records of some rows to a file.

    JSON Lines and JSON: a record from JSON Lines or JSON keeps its own text, on one line. Other records become compact
    JSON in UTF-8 (:mod:`donod_fast.data.json_values`). CSV and TSV: the rows of such files, and their header, byte for
    byte. Parquet: rows of Parquet files and other tables keep schema and values; the columns of other records are typed
    if this gives back exactly the same values, and JSON text if not (:mod:`donod_fast.data.record_tables`). Arrow and
    other kinds of :mod:`donod_fast.data.own_targets`: the rows of inputs that they can hold unchanged.

    Args:
        corpus: the source of the records. It is streamed once, for Parquet from other files twice (the types of the
            columns are known only after all records).
        rows: row numbers, each once, best first: (k,) ints or an int64 tensor; or a set, which needs one bit for
            each row of the corpus and has no order.
        out: ends in ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst``, ``.json`` or ``.parquet``; also in ``.csv`` or
            ``.tsv`` if all inputs are such files, and in a suffix of ``own_targets.TARGETS`` that takes these inputs.
        order: ``"input"`` writes in corpus order, in constant memory; ``"best"`` in the order of ``rows``, with the
            chosen records in memory.
        overwrite: replace a file that exists (never one of the corpus's own).

    Raises:
        InputError: no rows, a row twice, a set in the order ``"best"``, a suffix of a file that cannot hold the
            records, or a value from Python that the format cannot hold (the message names row and column).
        CorpusError: a row that the corpus does not have or cannot read.
        StoreError: the target exists, is one of the inputs, or cannot be written.
    """
    name = out.name.lower()
    sources = sources_of(corpus)
    refuse_suffix(out, sources)
    numbers = _checked(rows, corpus.rows, order)
    refuse_input(corpus, out)
    own_kind = own_target(out, sources)
    if own_kind is not None:
        own_kind.write(_as_chosen(corpus, numbers, order), out, overwrite)
        return Subset(len(numbers))

    json_columns: tuple[str, ...] = ()
    with new_file(out, overwrite) as file:
        if name.endswith(PARQUET):
            json_columns = _write_table(corpus, numbers, file, order)
        elif name.endswith((CSV, TSV)):
            own = ((record.row, record.raw or b"") for record in _chosen(corpus, numbers))
            write_own_rows(common_header(sources), _ordered(numbers, own, order), file)
        elif name.endswith(JSON):
            texts = ((record.row, json_text(record)) for record in _chosen(corpus, numbers))
            write_json_array(_ordered(numbers, texts, order), file)
        else:
            with compressing(file, name) as stream:
                _write_lines(corpus, numbers, stream, order)
    return Subset(len(numbers), json_columns)


def _as_chosen(corpus: Records, numbers: list[int] | RowSet, order: Literal["input", "best"]) -> Chosen:
    """The rows as writers of one kind of file take them."""
    return Chosen(
        sources_of(corpus),
        len(numbers),
        lambda: _rising(numbers)[0],
        _rising(numbers)[1],
        numbers if isinstance(numbers, list) and order == "best" else None,
        lambda: iter(_ordered(numbers, ((record.row, record) for record in _chosen(corpus, numbers)), order)),
        batch_check(corpus),
    )


def refuse_input(corpus: Records, out: Path) -> None:
    """Refuse to write over an input of the corpus. Raises StoreError."""
    refuse_inputs(corpus.describe().get("inputs", ()), out)


def _write_table(corpus: Records, numbers: list[int] | RowSet, file: BinaryIO, order: str) -> tuple[str, ...]:
    from donod_fast.data.record_tables import write_parquet

    arrow = arrow_sources(sources_of(corpus))
    if arrow is not None:
        rising, last = _rising(numbers)
        batches = chosen_batches(arrow, rising, last, batch_check(corpus))
        if isinstance(numbers, list) and order == "best":
            batches = in_order(batches, sorted(numbers), numbers)
        if write_parquet_batches(common_schema(arrow), batches, file) != len(numbers):
            raise CorpusError("rows are missing from the corpus; it has changed since it was scored")
        return ()
    held: list[Record] | None = None
    if isinstance(numbers, list) and order == "best":
        held = _in_order_of(numbers, ((record.row, record) for record in _chosen(corpus, numbers)))
    # Streamed again for each of the two passes, unless the records are in memory already.
    return write_parquet(lambda: iter(held) if held is not None else _chosen(corpus, numbers), file)


def chosen_records(
    corpus: Records, rows: Sequence[int] | Tensor | RowSet, *, order: Literal["input", "best"] = "input"
) -> Iterator[Record]:
    """The records of some rows, one after the other.

    Args:
        corpus: the source of the records; it is streamed once.
        rows: as in :func:`subset_file`.
        order: as in :func:`subset_file`; best first, all of them are in memory.

    Raises:
        InputError, CorpusError: as :func:`subset_file`.
    """
    numbers = _checked(rows, corpus.rows, order)
    chosen = _chosen(corpus, numbers)
    yield from _ordered(numbers, ((record.row, record) for record in chosen), order)


def subset_table(
    corpus: Records, rows: Sequence[int] | Tensor | RowSet, *, order: Literal["input", "best"] = "input"
) -> tuple[pa.Table, tuple[str, ...]]:
    """The records of some rows as the table that :func:`subset_file` writes to Parquet, and its columns of JSON text.

    Raises:
        InputError, CorpusError: as :func:`subset_file`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    json_columns = _write_table(corpus, _checked(rows, corpus.rows, order), file, order)
    return pq.read_table(pa.BufferReader(file.getvalue())), json_columns


def write_lines(
    corpus: Records,
    rows: Sequence[int] | Tensor | RowSet,
    stream: BinaryIO,
    *,
    order: Literal["input", "best"] = "input",
) -> int:
    """Write the records of some rows to an open stream as JSON Lines, and return their number.

    The lines are the same as in :func:`write_subset`. Lines that were written before an error remain.

    Args:
        corpus: the source of the records; it is streamed once.
        rows: as in :func:`write_subset`.
        stream: takes the bytes, for example standard output.
        order: as in :func:`write_subset`.

    Raises:
        InputError: no rows, a row twice, a set in the order ``"best"``, or a value that JSON cannot hold.
        CorpusError: a row that the corpus does not have or cannot read.
    """
    numbers = _checked(rows, corpus.rows, order)
    _write_lines(corpus, numbers, stream, order)
    return len(numbers)


def _write_lines(corpus: Records, numbers: list[int] | RowSet, stream: BinaryIO, order: str) -> None:
    lines = ((record.row, json_line(record)) for record in _chosen(corpus, numbers))
    for line in _ordered(numbers, lines, order):
        stream.write(line)


def _ordered(numbers: list[int] | RowSet, numbered: Iterable[tuple[int, _T]], order: str) -> Iterable[_T]:
    if isinstance(numbers, RowSet) or order == "input":
        return (item for _, item in numbered)
    return _in_order_of(numbers, numbered)


def _rising(rows: list[int] | RowSet) -> tuple[Iterable[int], int]:
    """The rows in ascending order, and the last one."""
    return (rows, rows.last) if isinstance(rows, RowSet) else (sorted(rows), max(rows))


def _checked(rows: Sequence[int] | Tensor | RowSet, available: int, order: str) -> list[int] | RowSet:
    check_row_order(order)
    return _checked_set(rows, available, order) if isinstance(rows, RowSet) else _checked_rows(rows, available)


def _checked_rows(rows: Sequence[int] | Tensor, available: int) -> list[int]:
    numbers = [int(row) for row in (rows.tolist() if isinstance(rows, Tensor) else rows)]
    if not numbers:
        raise InputError("no rows were chosen, so there is nothing to write")
    if len(set(numbers)) < len(numbers):
        raise InputError("a row was chosen twice; give each row number once")
    for row in (min(numbers), max(numbers)):
        if not 0 <= row < available:
            raise CorpusError(f"row {row} is not in the corpus, which has {plural(available, 'row')}")
    return numbers


def _checked_set(rows: RowSet, available: int, order: str) -> RowSet:
    if order == "best":
        raise InputError('a set of rows has no order; give the rows as a list, or order="input"')
    last = rows.last
    if last < 0:
        raise InputError("no rows were chosen, so there is nothing to write")
    if last >= available:
        raise CorpusError(f"row {last} is not in the corpus, which has {plural(available, 'row')}")
    return rows


def _chosen(corpus: Records, rows: list[int] | RowSet) -> Iterator[Record]:
    """The records of ``rows``, in input order, in one pass over the corpus."""
    rising, last = _rising(rows)
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
