"""A part file: rows of scores as Parquet, with a summary of them in its footer.

The summary describes a part without reading its rows: rows by status, and for DON and NOD the extremes and the sum of
squares, from which TOPSIS's constants of the whole corpus are computed (:func:`combined`). Its sums are exactly
rounded, so that equal rows give equal bytes.

Flipped bits are detected: pages and the summary have checksums, and the summary must match the rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from donod_fast.errors import StoreError
from donod_fast.scores.rows import ScoreRow, schema, to_table

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
    """What TOPSIS needs to know about a column of a part, over the rows that have scores.

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
        # + 0.0: no −0.0, whose sign would depend on the order of the rows
        low, high = float(there.min()) + 0.0, float(there.max()) + 0.0
        return ColumnSummary(len(column) - len(there), low, high, scale, squares)


Signals = Mapping[str, tuple[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class PartSummary:
    """The summary in the footer of a part.

    Attributes:
        number: of the part.
        first_row: its first row in the corpus.
        rows: how many it has.
        settings: hash of the settings that it was scored with.
        counts: rows by status.
        tokens: of all rows, before any truncation.
        scored_tokens: of all rows.
        don: summary of DON.
        nod: summary of NOD.
        segments: where the rows come from: the fields of each ``shards.Segment``, in order. Inputs count as in the
            manifest.
        signals: by name of a further criterion the fingerprint of its settings and its columns, in the table's order.
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

    @staticmethod
    def of(
        table: pa.Table,
        number: int,
        settings: str,
        segments: tuple[tuple[int, ...], ...],
        signals: Signals | None = None,
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
        )

    def has_signals(self, signals: Mapping[str, str]) -> bool:
        """Whether the part has the named criteria, each with this fingerprint of its settings."""
        return all(self.signals.get(name, ("",))[0] == mark for name, mark in signals.items())

    def as_json(self) -> str:
        """As JSON; equal summaries give equal text."""
        signals = [(name, *entry) for name, entry in self.signals.items()]  # in a list: their order is the table's
        return json.dumps({**asdict(self), "signals": signals}, sort_keys=True)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> PartSummary:
        """Read what :meth:`as_json` wrote."""
        columns = {name: ColumnSummary(**content[name]) for name in ("don", "nod")}
        signals = {name: (mark, tuple(names)) for name, mark, names in content["signals"]}
        segments = tuple(map(tuple, content["segments"]))
        return PartSummary(**{**content, **columns, "segments": segments, "signals": signals})


def part_bytes(
    rows: Sequence[ScoreRow],
    shard: Shard,
    settings: str,
    carry: Sequence[str] = (),
    signals: Sequence[SignalEntry] = (),
) -> bytes:
    """The Parquet file of a part. Equal rows, shard, settings and criteria give equal bytes."""
    columns = [column for entry in signals for column in entry.columns]
    return table_bytes(to_table(rows, carry, columns), shard, settings, signals_of(signals))


def signals_of(entries: Sequence[SignalEntry]) -> Signals:
    """The entry of criteria in a part's footer."""
    return {entry.name: (entry.fingerprint, tuple(column.name for column in entry.columns)) for entry in entries}


def table_bytes(table: pa.Table, shard: Shard, settings: str, signals: Signals | None = None) -> bytes:
    """As :func:`part_bytes`, of a table."""
    import pyarrow.parquet as pq

    segments = tuple(astuple(segment) for segment in shard.segments)
    summary = PartSummary.of(table, shard.number, settings, segments, signals).as_json().encode()
    table = table.replace_schema_metadata({METADATA: summary, CHECKSUM: hashlib.sha256(summary).hexdigest().encode()})
    buffer = io.BytesIO()
    # Without checksums a flipped bit of a score would be read back as another score; and statistics in the footer have
    # none, while readers skip rows by them.
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, write_statistics=False)
    return buffer.getvalue()


def read_part(
    file: BinaryIO, name: str, number: int, bounds: tuple[int, int], settings: str | None, carry: Sequence[str] = ()
) -> pa.Table:
    """Read a part and prove it: checksums, rows, settings, and a summary that agrees with the rows.

    Args:
        file: the file, closed by the caller.
        name: of the file, for messages.
        number: of the part.
        bounds: its first row and one past its last.
        settings: hash of the settings that it must have; None for any.
        carry: names of the carried columns.

    Raises:
        StoreError: it is not that.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _damage(name):
        table = pq.ParquetFile(file, page_checksum_verification=True).read()
        table.validate(full=True)
        summary = _summary(table.schema.metadata or {}, name)
    start, stop = bounds
    rows = table.column("row").to_numpy() if "row" in table.column_names else np.zeros(0)
    columns = [name for _, names in summary.signals.values() for name in names]
    base, own = schema(carry), table.schema
    if (
        not pa.schema(list(own)[: len(base)]).equals(base)
        or own.names[len(base) :] != columns
        or not np.array_equal(rows, np.arange(start, stop))
    ):
        raise StoreError(f"{name} does not hold the scores of rows {start} to {stop - 1}; {_AGAIN}")
    _refuse_other_settings(summary, settings, name)
    if summary != PartSummary.of(table, number, summary.settings, summary.segments, summary.signals):
        raise StoreError(f"{name} is damaged (its summary is not that of its rows); {_AGAIN}")
    empty: dict[bytes, bytes] = {}
    assert isinstance(table, pa.Table)
    return table.replace_schema_metadata(empty or None)


def read_summary(file: BinaryIO, name: str, number: int, bounds: tuple[int, int], settings: str | None) -> PartSummary:
    """Read a part's summary from its footer, without its rows.

    Raises:
        StoreError: there is none, or it is of other rows or settings.
    """
    import pyarrow.parquet as pq

    with _damage(name):
        summary = _summary(pq.read_schema(file).metadata or {}, name)
    if (summary.number, summary.first_row, summary.first_row + summary.rows) != (number, *bounds):
        raise StoreError(f"{name} does not hold the scores of rows {bounds[0]} to {bounds[1] - 1}; {_AGAIN}")
    _refuse_other_settings(summary, settings, name)
    return summary


def whole_column(columns: Iterable[ColumnSummary]) -> ColumnSummary:
    """The summary of a column from those of its parts; the same whatever the order of the parts."""
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
    """TOPSIS's constants of a column from the summaries of its parts; see :func:`whole_column`."""
    import torch

    from donod_fast.kernels.topsis import ColumnConstants

    whole = whole_column(columns)
    values = (whole.scale, whole.squares, whole.low, whole.high)
    return ColumnConstants(*(torch.tensor(value, dtype=torch.float64) for value in values))


def _summary(metadata: Mapping[bytes, bytes], name: str) -> PartSummary:
    content = metadata.get(METADATA, b"")
    if hashlib.sha256(content).hexdigest().encode() != metadata.get(CHECKSUM):
        raise StoreError(f"{name} is damaged (no summary, or one with another checksum); {_AGAIN}")
    return PartSummary.from_json(json.loads(content))


def _refuse_other_settings(summary: PartSummary, settings: str | None, name: str) -> None:
    if settings is not None and summary.settings != settings:
        raise StoreError(f"{name} was scored with other settings than the manifest says; {_AGAIN}")


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Turn what reading a damaged file may raise into a StoreError that names it."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, MemoryError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{name} is damaged ({reason}); {_AGAIN}") from error


__all__ = [
    "ColumnSummary",
    "PartSummary",
    "combined",
    "part_bytes",
    "read_part",
    "read_summary",
    "signals_of",
    "table_bytes",
    "whole_column",
]
