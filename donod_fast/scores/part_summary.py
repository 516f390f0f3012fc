"""The summary of a part: its rows by status, and for DON and NOD what TOPSIS needs, without reading the rows.

The summary describes extremes and sums of squares, from which TOPSIS's constants of the whole corpus are computed
(:func:`combined`). Its sums are exactly rounded, so that equal rows give equal summaries.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from donod_fast.scores.sample_counts import SampleCounts

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.kernels.topsis import ColumnConstants


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
        origin: hash of where the rows are from (:func:`origin_of`); empty in parts of earlier releases.
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
    origin: str = ""

    @staticmethod
    def of(
        table: pa.Table,
        number: int,
        settings: str,
        segments: tuple[tuple[int, ...], ...],
        signals: Signals | None = None,
        samples: SampleCounts = SampleCounts(),
        origin: str = "",
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
            origin,
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


__all__ = ["ColumnSummary", "PartSummary", "Signals", "combined", "whole_column"]
