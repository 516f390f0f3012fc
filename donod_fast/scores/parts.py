"""A part file: rows of scores as Parquet, with a summary of them in its footer.

The summary describes a part without reading its rows: rows by status, and for DON and NOD the extremes and the sum of
squares, from which TOPSIS's constants of the whole corpus are computed (:func:`combined`). Its sums are exactly
rounded, so that equal rows give equal bytes.

Flipped bits are detected: all bytes of the file have checksums (:mod:`donod_fast.system.sealed_parquet`), and the
summary must match the rows. A part also holds a hash of each record as it was read, in the column ``record_hash``,
which is no column of the table of scores.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from donod_fast.data.types import Status
from donod_fast.errors import StoreError
from donod_fast.scores.rows import HASH, ScoreRow, hash_field, schema, to_table, with_hashes
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.system.sealed_parquet import open_sealed, sealed_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.data.shards import Shard
    from donod_fast.kernels.topsis import ColumnConstants
    from donod_fast.scores.signals import SignalEntry

METADATA = b"donod_fast"
CHECKSUM = b"donod_fast.sha256"

_AGAIN = "run `donod-fast score` again to replace it"


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """Summary of a column of a part for TOPSIS, over the rows that have scores.

    Attributes:
        nan: rows without a score.
        low: smallest value, +inf without rows.
        high: largest value, -inf without rows.
        scale: largest absolute value, 0 without rows.
        squares: Σ (x / scale)², 0 if scale is 0 or infinite. Σx² is squares · scale²; this form does not overflow.
    """

    nan: int
    low: float
    high: float
    scale: float
    squares: float

    @staticmethod
    def of(column: Any) -> ColumnSummary:
        """Summarise a numpy array of float64."""
        there = column[~np.isnan(column)]
        if not len(there):
            return ColumnSummary(len(column), math.inf, -math.inf, 0.0, 0.0)
        scale = float(np.abs(there).max())
        squares = math.fsum(np.square(there / scale).tolist()) if 0 < scale < math.inf else 0.0
        # + 0.0 avoids −0.0, whose sign would depend on the order of the rows
        low, high = float(there.min()) + 0.0, float(there.max()) + 0.0
        return ColumnSummary(len(column) - len(there), low, high, scale, squares)


Signals = Mapping[str, tuple[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class PartSummary:
    """The summary in the footer of a part.

    Attributes:
        number: number of the part.
        first_row: first row of the part in the corpus.
        rows: number of rows.
        settings: hash of the settings that determined the scores.
        counts: number of rows by status.
        tokens: tokens of all rows, before truncation.
        scored_tokens: scored tokens of all rows.
        don: summary of DON.
        nod: summary of NOD.
        segments: origin of the rows: the fields of each ``shards.Segment``, in order. Inputs are numbered as in the
            manifest.
        signals: fingerprint of the settings and columns of each further criterion, by name, in the table's order.
        samples: what was used of the records; counts no rows in parts of earlier releases.
    """

    number: int
    first_row: int
    rows: int
    settings: str
    counts: Mapping[str, int]
    tokens: int
    scored_tokens: int
    don: ColumnSummary
    nod: ColumnSummary
    segments: tuple[tuple[int, ...], ...]
    signals: Signals = field(default_factory=dict)
    samples: SampleCounts = field(default_factory=SampleCounts)

    @staticmethod
    def of(
        table: pa.Table,
        number: int,
        settings: str,
        segments: tuple[tuple[int, ...], ...],
        signals: Signals | None = None,
        samples: SampleCounts = SampleCounts(),
    ) -> PartSummary:
        """Summarise the rows of a part."""

        def column(name: str) -> Any:
            return table.column(name).to_numpy()

        counts = Counter(table.column("status").to_pylist())
        return PartSummary(
            number,
            int(column("row")[0]),
            table.num_rows,
            settings,
            dict(sorted(counts.items())),
            int(column("tokens").sum(dtype=np.int64)),
            int(column("scored_tokens").sum(dtype=np.int64)),
            ColumnSummary.of(column("don")),
            ColumnSummary.of(column("nod")),
            segments,
            dict(signals or {}),
            samples,
        )

    def has_signals(self, signals: Mapping[str, str]) -> bool:
        """Whether the part has these criteria, each with the given fingerprint of its settings."""
        return all(self.signals.get(name, ("",))[0] == mark for name, mark in signals.items())

    def as_json(self) -> str:
        """The summary as JSON; equal summaries give equal text."""
        signals = [(name, *entry) for name, entry in self.signals.items()]  # a list, to keep the order of the table
        return json.dumps({**asdict(self), "signals": signals}, sort_keys=True)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> PartSummary:
        """Parse the output of :meth:`as_json`."""
        columns = {name: ColumnSummary(**content[name]) for name in ("don", "nod")}
        signals = {name: (mark, tuple(names)) for name, mark, names in content["signals"]}
        segments = tuple(map(tuple, content["segments"]))
        samples = SampleCounts.from_json(content.get("samples") or {})
        return PartSummary(**{**content, **columns, "segments": segments, "signals": signals, "samples": samples})


def part_bytes(
    rows: Sequence[ScoreRow],
    shard: Shard,
    settings: str,
    carry: Sequence[str] = (),
    signals: Sequence[SignalEntry] = (),
    samples: SampleCounts = SampleCounts(),
) -> bytes:
    """The Parquet file of a part. Equal rows, shard, settings, criteria and counts give equal bytes."""
    columns = [column for entry in signals for column in entry.columns]
    table = with_hashes(to_table(rows, carry, columns), [row.hash for row in rows])
    return table_bytes(table, shard, settings, signals_of(signals), samples)


def signals_of(entries: Sequence[SignalEntry]) -> Signals:
    """Criteria in the form of a part's footer."""
    return {entry.name: (entry.fingerprint, tuple(column.name for column in entry.columns)) for entry in entries}


def table_bytes(
    table: pa.Table,
    shard: Shard,
    settings: str,
    signals: Signals | None = None,
    samples: SampleCounts = SampleCounts(),
) -> bytes:
    """Like :func:`part_bytes`, for a table, which may have hashes of the records."""
    if HASH in table.column_names:  # the last one
        table = table.drop_columns([HASH]).append_column(hash_field(), table.column(HASH))
    segments = tuple(astuple(segment) for segment in shard.segments)
    summary = PartSummary.of(table, shard.number, settings, segments, signals, samples).as_json().encode()
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
        needs_seal: refuse a file without checksums of all its bytes.

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
    if summary != PartSummary.of(table, number, summary.settings, summary.segments, summary.signals, summary.samples):
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
    needs_seal: bool = False,
) -> PartSummary:
    """Read a part's summary from its footer, without its rows.

    Raises:
        StoreError: the summary is missing or damaged, or belongs to other rows or settings.
    """
    with damage(name):
        summary = _summary(open_sealed(file, needs_seal=needs_seal).metadata.metadata or {}, name)
    if (summary.number, summary.first_row, summary.first_row + summary.rows) != (number, *bounds):
        raise StoreError(f"{name} does not hold the scores of rows {bounds[0]} to {bounds[1] - 1}; {_AGAIN}")
    _refuse_other_settings(summary, settings, name)
    return summary


def whole_column(columns: Iterable[ColumnSummary]) -> ColumnSummary:
    """The summary of a column from those of its parts; independent of the order of the parts."""
    found = list(columns)
    known = [column for column in found if column.scale or column.low <= column.high]
    scale = max((column.scale for column in known), default=0.0)
    return ColumnSummary(
        nan=sum(column.nan for column in found),
        low=min((column.low for column in known), default=math.inf),
        high=max((column.high for column in known), default=-math.inf),
        scale=scale,
        squares=math.fsum(column.squares * (column.scale / scale) ** 2 for column in known) if scale else 0.0,
    )


def combined(columns: Iterable[ColumnSummary]) -> ColumnConstants:
    """Constants of a column for TOPSIS from the summaries of its parts; see :func:`whole_column`."""
    import torch

    from donod_fast.kernels.topsis import ColumnConstants

    whole = whole_column(columns)
    values = (whole.scale, whole.squares, whole.low, whole.high)
    return ColumnConstants(*(torch.tensor(value, dtype=torch.float64) for value in values))


def _summary(metadata: Mapping[bytes, bytes], name: str) -> PartSummary:
    content = metadata.get(METADATA, b"")
    if hashlib.sha256(content).hexdigest().encode() != metadata.get(CHECKSUM):
        raise StoreError(f"{name} is damaged (no summary, or one with another checksum); {_AGAIN}")
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
        raise StoreError(f"{name} was scored with other settings than the manifest says; {_AGAIN}")


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
    "ColumnSummary",
    "PartSummary",
    "combined",
    "damage",
    "part_bytes",
    "read_part",
    "read_summary",
    "signals_of",
    "table_bytes",
    "whole_column",
    "without_hashes",
]
