"""The summary of a part: its rows by status, and for DON and NOD what TOPSIS needs, without reading the rows.

The summary describes extremes and sums, from which TOPSIS's constants of the whole corpus are computed
(:func:`combined`), and the variation of a column (:meth:`ColumnSummary.variation`). Its sums are exactly rounded, so
that equal rows give equal summaries.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from donod_fast.scores.gradient_size import GradientSize
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
        total: Σ (x / scale), 0 if ``scale`` is 0; None in parts of earlier releases.
        absolutes: Σ |x / scale|, 0 if ``scale`` is 0; None in parts of earlier releases.
    """

    nan: int
    low: float
    high: float
    scale: float
    squares: float
    total: float | None = None
    absolutes: float | None = None

    @staticmethod
    def of(column: Any) -> ColumnSummary:
        """Summarise a numpy array of float64."""
        there = column[~np.isnan(column)]
        if not len(there):
            return ColumnSummary(len(column), math.inf, -math.inf, 0.0, 0.0, 0.0, 0.0)
        scale = float(np.abs(there).max())
        relative = there / scale if 0 < scale < math.inf else np.zeros(0)
        sums = (np.square(relative), relative, np.abs(relative))
        squares, total, absolutes = (math.fsum(one.tolist()) for one in sums)
        # + 0.0 avoids −0.0, whose sign would depend on the order of the rows
        low, high = float(there.min()) + 0.0, float(there.max()) + 0.0
        return ColumnSummary(len(column) - len(there), low, high, scale, squares, total + 0.0, absolutes)

    def as_earlier(self) -> ColumnSummary:
        """The summary as releases before 0.5 wrote it: without what came later."""
        return replace(self, total=None, absolutes=None)

    def variation(self, rows: int) -> float | None:
        """Coefficient of variation σ/|μ| of a column of so many rows, from sums: below about 1e-7 it is their rounding.

        None if it is not known (parts of an earlier release) or not defined (fewer than two rows, a mean of 0).
        """
        count = rows - self.nan
        if not self.total or count < 2:
            return None
        mean = self.total / count
        return math.sqrt(max(0.0, self.squares / count - mean * mean)) / abs(mean)


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
        gradient: size of the gradient's entries, in the first part of a run with AdamW; None elsewhere.
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
    gradient: GradientSize | None = None

    @staticmethod
    def of(
        table: pa.Table,
        number: int,
        settings: str,
        segments: tuple[tuple[int, ...], ...],
        signals: Signals | None = None,
        samples: SampleCounts = SampleCounts(),
        origin: str = "",
        gradient: GradientSize | None = None,
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
            gradient,
        )

    def as_earlier(self) -> PartSummary:
        """The summary as releases before 0.5 wrote it: without what came later."""
        return replace(self, don=self.don.as_earlier(), nod=self.nod.as_earlier())

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
        gradient = None if content.get("gradient") is None else GradientSize.from_json(content["gradient"])
        read = {"segments": segments, "signals": signals, "samples": samples, "gradient": gradient}
        return PartSummary(**{**content, **columns, **read})


def whole_column(columns: Iterable[ColumnSummary]) -> ColumnSummary:
    """The summary of a column from those of its parts; independent of the order of the parts."""
    found = list(columns)
    known = [column for column in found if column.scale or column.low <= column.high]
    scale = max((column.scale for column in known), default=0.0)

    def added(parts: list[float | None], power: int) -> float | None:
        if any(part is None for part in parts):
            return None
        if not scale:
            return 0.0
        pairs = zip(cast(list[float], parts), known, strict=True)
        return math.fsum(part * (column.scale / scale) ** power for part, column in pairs) + 0.0

    return ColumnSummary(
        nan=sum(column.nan for column in found),
        low=min((column.low for column in known), default=math.inf),
        high=max((column.high for column in known), default=-math.inf),
        scale=scale,
        squares=cast(float, added([column.squares for column in known], 2)),
        total=added([column.total for column in known], 1),
        absolutes=added([column.absolutes for column in known], 1),
    )


def combined(columns: Iterable[ColumnSummary]) -> ColumnConstants:
    """Constants of a column for TOPSIS from the summaries of its parts; see :func:`whole_column`.

    The sum of absolute values is NaN if a part of an earlier release lacks it.
    """
    import torch

    from donod_fast.kernels.topsis import ColumnConstants

    whole = whole_column(columns)
    absolutes = math.nan if whole.absolutes is None else whole.absolutes
    values = (whole.scale, whole.squares, whole.low, whole.high, absolutes)
    return ColumnConstants(*(torch.tensor(value, dtype=torch.float64) for value in values))


__all__ = ["ColumnSummary", "PartSummary", "Signals", "combined", "whole_column"]
