"""A part file: rows of scores as Parquet, with a summary of them in its footer.

The summary (``part_summary.py``) describes a part without reading its rows. Equal rows give equal bytes.

Flipped bits are detected: all bytes of the file have checksums (:mod:`donod_fast.system.sealed_parquet`), and the
summary must match the rows. A part also holds a hash of each record as it was read, in the column ``record_hash``,
which is no column of the table of scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from donod_fast.data.types import Status
from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.scores.gradient_size import GradientSize
from donod_fast.scores.part_summary import PartSummary, Signals
from donod_fast.scores.rows import HASH, ScoreRow, hash_field, schema, to_table, with_hashes
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.system.sealed_parquet import open_sealed, sealed_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.data.shards import Shard
    from donod_fast.scores.signals import SignalEntry

METADATA = b"donod_fast"
CHECKSUM = b"donod_fast.sha256"

_AGAIN = "run `donod-fast score` again to replace it"


Key = tuple[tuple[str, int, int], ...]


def shard_key(shard: Shard, corpus: Mapping[str, Any]) -> Key:
    """Identity of a shard's rows, independent of their numbers: content of the input, first row in it, rows.

    Args:
        shard: the shard.
        corpus: the section ``input`` of a manifest.
    """
    inputs = corpus.get("inputs")
    digests = [str(corpus["fingerprint"])] if inputs is None else [str(entry["digest"]) for entry in inputs]
    return tuple((digests[each.input], each.start, each.rows) for each in shard.segments)


def origin_of(shard: Shard, corpus: Mapping[str, Any]) -> str:
    """Hash of :func:`shard_key`. A part with another one belongs to another folder, or to an input that has changed."""
    return hashlib.sha256(json.dumps(shard_key(shard, corpus)).encode()).hexdigest()[:32]


def part_bytes(
    rows: Sequence[ScoreRow],
    shard: Shard,
    settings: str,
    carry: Sequence[str] = (),
    signals: Sequence[SignalEntry] = (),
    samples: SampleCounts = SampleCounts(),
    origin: str = "",
    gradient: GradientSize | None = None,
) -> bytes:
    """The Parquet file of a part. Equal rows, shard, settings, criteria, counts and origin give equal bytes."""
    columns = [column for entry in signals for column in entry.columns]
    table = with_hashes(to_table(rows, carry, columns), [row.hash for row in rows])
    return table_bytes(table, shard, settings, signals_of(signals), samples, origin, gradient)


def signals_of(entries: Sequence[SignalEntry]) -> Signals:
    """Criteria in the form of a part's footer."""
    return {entry.name: (entry.fingerprint, tuple(column.name for column in entry.columns)) for entry in entries}


def table_bytes(
    table: pa.Table,
    shard: Shard,
    settings: str,
    signals: Signals | None = None,
    samples: SampleCounts = SampleCounts(),
    origin: str = "",
    gradient: GradientSize | None = None,
) -> bytes:
    """Like :func:`part_bytes`, for a table, which may have hashes of the records."""
    if HASH in table.column_names:  # the last one
        table = table.drop_columns([HASH]).append_column(hash_field(), table.column(HASH))
    segments = tuple(astuple(segment) for segment in shard.segments)
    made = PartSummary.of(table, shard.number, settings, segments, signals, samples, origin, gradient)
    summary = made.as_json().encode()
    table = table.replace_schema_metadata({METADATA: summary, CHECKSUM: hashlib.sha256(summary).hexdigest().encode()})
    return sealed_bytes(table, compression="zstd")


def read_part(
    file: BinaryIO,
    name: str,
    number: int,
    bounds: tuple[int, int],
    settings: str | None,
    carry: Sequence[str] = (),
    *,
    origin: str | None = None,
    needs_seal: bool = False,
) -> pa.Table:
    """Read a part and verify it: checksums, rows, settings, and that the summary agrees with the rows.

    Args:
        file: the file; the caller closes it.
        name: name of the file in messages.
        number: number of the part.
        bounds: first row of the part, and the row after its last.
        settings: required hash of the settings; None for any.
        carry: names of the carried columns.
        origin: required hash of where the rows are from; None for any.
        needs_seal: refuse a file without checksums of all its bytes, or without this hash.

    Returns:
        The scores, and as the last column the hashes of the records, unless an earlier release wrote the part.

    Raises:
        StoreError: the file is not this part, or is damaged.
    """
    import pyarrow as pa

    with damage(name):
        table = open_sealed(file, needs_seal=needs_seal).table()
        table.validate(full=True)
        summary = _summary(table.schema.metadata or {}, name)
    start, stop = bounds
    rows = table.column("row").to_numpy() if "row" in table.column_names else np.zeros(0)
    columns = [name for _, names in summary.signals.values() for name in names]
    base, own = schema(carry), without_hashes(table).schema
    if (
        not pa.schema(list(own)[: len(base)]).equals(base)
        or own.names[len(base) :] != columns
        or not np.array_equal(rows, np.arange(start, stop))
    ):
        raise StoreError(f"{name} does not hold the scores of rows {start} to {stop - 1}; {_AGAIN}")
    _refuse_other_settings(summary, settings, name)
    _refuse_other_origin(summary, origin, name, needs_seal)
    made = (summary.settings, summary.segments, summary.signals, summary.samples, summary.origin, summary.gradient)
    expected = PartSummary.of(table, number, *made)
    if summary not in (expected, expected.as_earlier()):
        raise StoreError(f"{name} is damaged (its summary does not agree with its rows); {_AGAIN}")
    empty: dict[bytes, bytes] = {}
    assert isinstance(table, pa.Table)
    return table.replace_schema_metadata(empty or None)


def without_hashes(table: pa.Table) -> pa.Table:
    """The scores of a part, as :func:`read_part` gives them, without the hashes of the records."""
    return table.drop_columns([HASH]) if HASH in table.column_names else table


def read_summary(
    file: BinaryIO,
    name: str,
    number: int,
    bounds: tuple[int, int],
    settings: str | None,
    *,
    origin: str | None = None,
    needs_seal: bool = False,
) -> PartSummary:
    """Read a part's summary from its footer, without its rows.

    Raises:
        StoreError: the summary is missing or damaged, or belongs to other rows or settings.
    """
    with damage(name):
        metadata = open_sealed(file, needs_seal=needs_seal).metadata.metadata or {}
        return _summary_of_part(metadata, name, number, bounds, settings, origin, needs_seal)


def read_columns(
    file: BinaryIO,
    name: str,
    number: int,
    bounds: tuple[int, int],
    settings: str | None,
    columns: Sequence[str],
    *,
    origin: str | None = None,
    needs_seal: bool = False,
) -> pa.Table:
    """Read those of some columns that a part has, and verify them and its summary; arguments as of :func:`read_part`.

    Raises:
        StoreError: the file is not this part, or is damaged.
    """
    with damage(name):
        sealed = open_sealed(file, needs_seal=needs_seal)
        _summary_of_part(sealed.metadata.metadata or {}, name, number, bounds, settings, origin, needs_seal)
        leaves = sealed.metadata.schema
        paths = [leaves.column(at).path for at in range(len(leaves))]
        there = {*paths, *(path.removesuffix(".list.element") for path in paths)}  # vectors are lists
        table = sealed.table([column for column in columns if column in there], use_threads=False)
        table.validate()
    if table.num_rows != bounds[1] - bounds[0]:
        raise StoreError(f"{name} does not hold the scores of rows {bounds[0]} to {bounds[1] - 1}; {_AGAIN}")
    return table


def _summary_of_part(
    metadata: Mapping[bytes, bytes],
    name: str,
    number: int,
    bounds: tuple[int, int],
    settings: str | None,
    origin: str | None,
    needs_origin: bool,
) -> PartSummary:
    """The summary of a footer. Raises StoreError: it belongs to other rows or settings."""
    summary = _summary(metadata, name)
    if (summary.number, summary.first_row, summary.first_row + summary.rows) != (number, *bounds):
        raise StoreError(f"{name} does not hold the scores of rows {bounds[0]} to {bounds[1] - 1}; {_AGAIN}")
    _refuse_other_settings(summary, settings, name)
    _refuse_other_origin(summary, origin, name, needs_origin)
    return summary


def _summary(metadata: Mapping[bytes, bytes], name: str) -> PartSummary:
    content = metadata.get(METADATA, b"")
    if hashlib.sha256(content).hexdigest().encode() != metadata.get(CHECKSUM):
        raise StoreError(f"{name} is damaged (no summary, or one with another checksum); {_AGAIN}")
    return checked_summary(content, name)


def checked_summary(content: bytes, name: str) -> PartSummary:
    """Parse the JSON of a summary, and check that it is one.

    Args:
        content: the JSON, whose checksum was verified.
        name: name of its file in messages.

    Raises:
        StoreError: a status or a number is none that a summary can have.
    """
    summary = PartSummary.from_json(json.loads(content))
    known = {str(status) for status in Status}
    for status, rows in summary.counts.items():
        if status not in known:
            raise StoreError(f"{name} is damaged (status: {status!r} is none that a row can have); {_AGAIN}")
        if not isinstance(rows, int) or rows < 1:
            raise StoreError(f"{name} is damaged (counts.{status}: {rows!r} is not a number of rows); {_AGAIN}")
    numbers = (summary.number, summary.first_row, summary.rows, summary.tokens, summary.scored_tokens)
    if not all(isinstance(one, int) and one >= 0 for one in numbers):
        raise StoreError(f"{name} is damaged (its summary holds {numbers}, not numbers); {_AGAIN}")
    return summary


def _refuse_other_settings(summary: PartSummary, settings: str | None, name: str) -> None:
    if settings is not None and summary.settings != settings:
        raise SettingsMismatchError(f"{name} was scored with other settings than the manifest says; {_AGAIN}")


def _refuse_other_origin(summary: PartSummary, origin: str | None, name: str, needed: bool) -> None:
    if origin is not None and summary.origin != origin and (summary.origin or needed):
        raise StoreError(
            f"{name} holds scores of other records: it is from another folder, or its input was another one; {_AGAIN}"
        )


@contextmanager
def damage(name: str) -> Iterator[None]:
    """Convert the exceptions of reading a damaged part into a StoreError that names the file."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (*_UNREADABLE, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{name} is damaged ({reason}); {_AGAIN}") from error


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RecursionError, OverflowError)


__all__ = [
    "Key",
    "checked_summary",
    "damage",
    "origin_of",
    "part_bytes",
    "read_columns",
    "read_part",
    "read_summary",
    "shard_key",
    "signals_of",
    "table_bytes",
    "without_hashes",
]
