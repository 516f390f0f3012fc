"""Rows of Parquet files and datasets as one Parquet file: the same schema and values as Arrow's ``take``.

The rows never become Python values. Sources are streamed in small batches; the chosen rows are collected into row
groups of ``GROUP_ROWS`` rows or ``GROUP_BYTES``, whichever comes first, so that memory stays bounded.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from donod_fast.data.reading.arrow_values import conformed
from donod_fast.data.reading.source import Source
from donod_fast.errors import InputError


@runtime_checkable
class ArrowSource(Source, Protocol):
    """An input that gives its rows as Arrow batches: a Parquet or Arrow file, a dataset."""

    @property
    def name(self) -> str:
        """The input as the user gave it."""

    def arrow_schema(self) -> pa.Schema:
        """The schema of all batches, with all metadata. Raises CorpusError."""

    def arrow_batches(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Stream the rows ``start <= i < stop``: the number of each batch's first row, and the batch.

        Raises:
            CorpusError: the rows cannot be read, or have changed.
        """


class TableWriter(Protocol):
    """What writes tables: a ``pq.ParquetWriter`` or an ``ArrowWriter``."""

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write rows, as row groups of at most so many."""


BatchCheck = Callable[[Sequence[int], pa.RecordBatch], None]
"""Called with row numbers and these rows before they are used; it raises an error if they have changed."""

GROUP_ROWS = 1 << 16
GROUP_BYTES = 1 << 26

_SCHEMA_KEYS = (b"huggingface",)
"""Keys of a schema's metadata that say what the values mean; other keys may differ between files."""


def arrow_sources(sources: Sequence[Source]) -> list[ArrowSource] | None:
    """The sources, if every one is a table (a Parquet or Arrow file, a dataset); else None."""
    found = [source for source in sources if isinstance(source, ArrowSource)]
    return found if found and len(found) == len(sources) else None


def batch_check(corpus: Any) -> BatchCheck | None:
    """The check that a corpus has for its rows as Arrow batches (that of a scores folder); None if it has none."""
    found: BatchCheck | None = getattr(corpus, "check_batch", None)
    return found


def common_schema(sources: Sequence[ArrowSource], target: str = "Parquet") -> pa.Schema:
    """The schema of all sources; of metadata that describe one file only (pandas' index), those of the first one.

    Args:
        sources: at least one.
        target: the kind of file that is to hold the rows.

    Raises:
        InputError: two schemas differ, or Parquet has no type for a column (an object without keys); the message
            names the sources, the column and the remedy.
        CorpusError: a source cannot be read, or has changed.
    """
    schema = sources[0].arrow_schema()
    for other in sources[1:]:
        difference = _difference(schema, other.arrow_schema())
        if difference is not None:
            raise InputError(
                f"{sources[0].name} and {other.name} have different schemas ({difference}), so one {target} file "
                "cannot hold the rows of both unchanged; write to a name that ends in .jsonl, or score the files apart"
            )
    if target == "Parquet":
        for field in schema:
            _refuse_unwritable(sources[0].name, field)
    return schema


def _refuse_unwritable(source: str, field: pa.Field) -> None:
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
    except pa.ArrowNotImplementedError as error:
        raise InputError(
            f"{source}: no Parquet file can hold the column {field.name!r} ({str(error).partition('. ')[0]}); "
            "write to a name that ends in .jsonl"
        ) from error


def _difference(one: pa.Schema, two: pa.Schema) -> str | None:
    for name in one.names:
        if name not in two.names:
            return f"the column {name!r} is only in the first"
    for name in two.names:
        if name not in one.names:
            return f"the column {name!r} is only in the second"
    if one.names != two.names:
        return "the columns are in another order"
    for left, right in zip(one, two, strict=True):
        if left.type != right.type:
            return f"the column {left.name!r} is {left.type} in one, {right.type} in the other"
        if left.nullable != right.nullable:
            return f"the column {left.name!r} may be null in only one"
        if not left.equals(right, check_metadata=True):
            return f"the metadata of the column {left.name!r} differ"
    for key in _SCHEMA_KEYS:
        if (one.metadata or {}).get(key) != (two.metadata or {}).get(key):
            return f"the metadata {key.decode()!r} differ"
    return None


def chosen_batches(
    sources: Sequence[ArrowSource], rising: Iterable[int], last: int, check: BatchCheck | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream the chosen rows as batches, in input order.

    Args:
        sources: the sources of a corpus.
        rising: row numbers over all sources, ascending, each once.
        last: the highest of them.
        check: called with each batch before it is given out.

    Raises:
        CorpusError: a source cannot be read, or has changed.
    """
    numbers = iter(rising)
    wanted = next(numbers, -1)
    for source, stop in zip(sources, accumulate(source.rows for source in sources), strict=True):
        first = stop - source.rows
        if not first <= wanted < stop:
            continue
        for begin, batch in source.arrow_batches(wanted - first, min(last + 1, stop) - first):
            begin += first
            batch = _without_views(batch)
            indices = []
            while begin <= wanted < begin + batch.num_rows:
                indices.append(wanted - begin)
                wanted = next(numbers, -1)
            if indices:
                chosen = batch if len(indices) == batch.num_rows else _taken(batch, indices)
                if check is not None:
                    check([begin + at for at in indices], chosen)
                yield chosen


def in_order(
    batches: Iterable[pa.RecordBatch], rising: Sequence[int], order: Sequence[int]
) -> Iterator[pa.RecordBatch]:
    """Bring chosen rows into another order, with all of them in memory.

    Args:
        batches: the rows in the order of ``rising``.
        rising: their row numbers.
        order: the same numbers in the order wanted.
    """
    held = list(batches)
    starts = [0, *accumulate(batch.num_rows for batch in held)]
    position = {row: at for at, row in enumerate(rising)}
    places = [position[row] for row in order]
    for begin in range(0, len(places), GROUP_ROWS):
        group = places[begin : begin + GROUP_ROWS]
        by_batch: dict[int, list[int]] = {}
        for place in sorted(group):
            by_batch.setdefault(bisect.bisect_right(starts, place) - 1, []).append(place)
        parts = [_taken(held[at], [place - starts[at] for place in those]) for at, those in by_batch.items()]
        rank = {place: at for at, place in enumerate(sorted(group))}
        table = pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()
        yield from table.take(pa.array([rank[place] for place in group], pa.int64())).combine_chunks().to_batches()


def _taken(batch: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    if not any(_is_matrix(field.type) for field in batch.schema):
        return batch.take(pa.array(rows, pa.int32()))
    # pyarrow (at least up to 26) takes wrong values of fixed-size lists of fixed-size lists from a slice
    table = pa.Table.from_batches([batch.slice(row, 1) for row in rows])
    return table.combine_chunks().to_batches()[0]


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with plain text and bytes for views, which pyarrow cannot take (they are written as views)."""
    plain = pa.schema([field.with_type(_plain_type(field.type)) for field in batch.schema], batch.schema.metadata)
    if plain.types == batch.schema.types:
        return batch
    columns = [
        column if column.type == kind else column.cast(kind)
        for column, kind in zip(batch.columns, plain.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with large text and bytes for views, also within lists and structs."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items = kind.value_field.with_type(_plain_type(kind.value_type))
        return pa.list_(items) if pa.types.is_list(kind) else pa.large_list(items)
    return kind


def _is_matrix(kind: pa.DataType) -> bool:
    """Whether a type is, or holds, fixed-size lists of fixed-size lists."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_matrix(kind.storage_type)
    if pa.types.is_fixed_size_list(kind) and pa.types.is_fixed_size_list(kind.value_type):
        return True
    if pa.types.is_struct(kind):
        return any(_is_matrix(field.type) for field in kind)
    if pa.types.is_map(kind):
        return _is_matrix(kind.item_type)
    return pa.types.is_nested(kind) and hasattr(kind, "value_type") and _is_matrix(kind.value_type)


def write_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch], writer: TableWriter) -> int:
    """Write batches with exactly this schema, a row group at a time, and return the number of rows."""
    rows = 0
    for group in _groups(batches):
        table = pa.concat_tables([conformed(batch, schema) for batch in group])
        writer.write_table(table, row_group_size=GROUP_ROWS)
        rows += table.num_rows
    return rows


def write_parquet_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: BinaryIO) -> int:
    """Write batches as Parquet with exactly this schema, and return the number of rows."""
    with pq.ParquetWriter(file, schema) as writer:
        return write_batches(schema, batches, writer)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


__all__ = [
    "ArrowSource",
    "BatchCheck",
    "TableWriter",
    "arrow_sources",
    "batch_check",
    "chosen_batches",
    "common_schema",
    "in_order",
    "write_batches",
    "write_parquet_batches",
]
