"""Rank correlation of criteria, and the overlap of their selections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from donod_fast.errors import InputError, suggest
from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.selection.column_methods import OWN_METHODS, better_end, find_method, split_end
from donod_fast.selection.comparison.yardstick import Yardstick, yardsticks
from donod_fast.selection.keeping import keep
from donod_fast.selection.rank_correlation import average_ranks, spearman
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.selection.settings import CORRELATIONS
from donod_fast.selection.turn_names import turn_column

Matrix = NDArray[np.float64]

RANKED = ("topsis", "weighted", "pareto")
"""Methods that are compared besides the columns; others are a column, random, or the reverse of one of these."""

AS_IS = "as is"


@dataclass(frozen=True)
class Comparison:
    """Pairwise comparison of criteria, signs aligned so that higher is better.

    Attributes:
        names: names of the k criteria: methods and columns.
        ends: the better end of each criterion: ``high``, ``low``, or ``as is`` if it is not known (the sign is kept,
            and the criterion selects nothing).
        values: number of rows with a value, by criterion.
        kept: number of rows that each criterion selects.
        correlation: (k, k) rank correlations over the rows where both have a value; NaN if there are fewer than two
            such rows, or one of the two is constant on them.
        overlap: (k, k) number of rows that both select, divided by the smaller selection; NaN if one selects none.
        measure: one of :data:`CORRELATIONS`.
        keep: how much each criterion selects of its ranked rows: a fraction or a count.
        rows: number of compared rows.
        total: number of rows of the folder; more than ``rows`` if a sample was drawn.
        normalise: what TOPSIS divided the columns by.
        yardsticks: each selection beside random draws of as many rows, as many tokens, and the same lengths.
    """

    names: tuple[str, ...]
    ends: tuple[str, ...]
    values: tuple[int, ...]
    kept: tuple[int, ...]
    correlation: Matrix
    overlap: Matrix
    measure: str
    keep: float | int
    rows: int
    total: int
    normalise: str
    yardsticks: tuple[Yardstick, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON values; None in place of NaN."""

        def plain(matrix: Matrix) -> list[list[float | None]]:
            return [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]

        criteria = [
            {"name": name, "preferred": end, "values": values, "kept": kept}
            for name, end, values, kept in zip(self.names, self.ends, self.values, self.kept, strict=True)
        ]
        return {
            "rows": self.rows,
            "total": self.total,
            "keep": self.keep,
            "normalise": self.normalise,
            "criteria": criteria,
            self.measure: plain(self.correlation),
            "overlap": plain(self.overlap),
            "yardsticks": [one.as_dict() for one in self.yardsticks],
        }


def compare_columns(
    columns: ScoreColumns,
    names: Sequence[str] | None = None,
    *,
    share: float | int = 0.3,
    measure: str = "spearman",
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    total: int | None = None,
    chosen: Mapping[str, Sequence[int]] | None = None,
) -> Comparison:
    """Compare criteria.

    Args:
        columns: columns of a table of scores; rows without DON and NOD are not compared.
        names: methods of ``ranking.py`` and ``column_methods.py``; None for :data:`RANKED` and every column.
        share: how much each criterion selects, a fraction or a count; see ``keeping.keep``.
        measure: one of :data:`CORRELATIONS`; Kendall's is τ-b and needs scipy.
        weights: weights of DON and NOD, for the methods that use them.
        normalise: what TOPSIS divides the columns by; see ``ranking.rank``.
        total: number of rows of the folder, if the columns are a sample.
        chosen: rows selected by methods without a ranking, by name; they are used for the overlaps.

    Raises:
        InputError: an unknown name or measure, fewer than two criteria, a missing column, an infinite score.
    """
    if measure not in CORRELATIONS:
        raise InputError(
            f"the correlation must be one of {', '.join(CORRELATIONS)}, got {measure!r}{suggest(measure, CORRELATIONS)}"
        )
    wanted = list(names) if names is not None else [*RANKED, *columns.names]
    others = dict(chosen or {})
    twice = [name for name in [*wanted, *others] if [*wanted, *others].count(name) > 1]
    if twice:
        raise InputError(f"{twice[0]} is named twice; name each criterion once")
    if len(wanted) + len(others) < 2:
        raise InputError("a comparison needs two criteria; add more with --columns")
    place = {row: at for at, row in enumerate(columns.row.tolist())}
    criteria = [_criterion(columns, name, share, weights, normalise, place) for name in wanted]
    nothing = torch.full((len(place),), math.nan, dtype=torch.float64)
    for rows in others.values():
        criteria.append(_Criterion(nothing, "high", _mask([place[row] for row in rows], len(place))))
    size = len(criteria)
    correlation, overlap = (np.full((size, size), math.nan) for _ in range(2))
    correlate = _Correlations([one.value for one in criteria], measure)
    for a in range(size):
        for b in range(a + 1):
            correlation[a, b] = correlation[b, a] = correlate(a, b)
            overlap[a, b] = overlap[b, a] = _overlap(criteria[a].kept, criteria[b].kept)
    return Comparison(
        names=(*wanted, *others),
        ends=tuple(one.end for one in criteria),
        values=tuple(int((~one.value.isnan()).sum()) for one in criteria),
        kept=tuple(int(one.kept.sum()) for one in criteria),
        correlation=correlation,
        overlap=overlap,
        measure=measure,
        keep=share,
        rows=len(place),
        total=len(place) if total is None else total,
        normalise=normalise,
        yardsticks=yardsticks(
            columns, {name: one.kept for name, one in zip((*wanted, *others), criteria, strict=True)}
        ),
    )


@dataclass(frozen=True)
class _Criterion:
    value: Tensor  # (n,) by position in the columns, higher is better, NaN if there is none
    end: str
    kept: Tensor  # (n,) bool


def _criterion(
    columns: ScoreColumns,
    name: str,
    share: float | int,
    weights: tuple[float, float],
    normalise: str,
    place: Mapping[int, int],
) -> _Criterion:
    """A criterion's values and selection."""
    bare, end = split_end(name)
    if end is None and bare in columns.names and bare not in OWN_METHODS and better_end(bare) is None:
        value = columns.column(bare).where(~(columns.don.isnan() | columns.nod.isnan()), math.nan)
        return _Criterion(value, AS_IS, torch.zeros(len(place), dtype=torch.bool))
    by = None if turn_column(name) is not None else find_method(name, columns.names)
    low = bare in ("nod", "loss") if by is None else not by.high
    ranking = rank(columns, name, weights=weights, normalise=normalise)
    value = torch.full((len(place),), math.nan, dtype=torch.float64)
    value[[place[row] for row in ranking.order.tolist()]] = ranking.value
    # Ties are broken by row number: with equal values a selection would only reflect the order of the corpus.
    constant = len(ranking.value) == 0 or bool(ranking.value[0] == ranking.value[-1])
    rows = [] if constant else [place[row] for row in keep(ranking, keep=share).tolist()]
    return _Criterion(value, "low" if low else "high", _mask(rows, len(place)))


def _mask(places: Sequence[int], size: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(places)] = True
    return mask


def _overlap(a: Tensor, b: Tensor) -> float:
    fewer = min(int(a.sum()), int(b.sum()))
    return int((a & b).sum()) / fewer if fewer else math.nan


class _Correlations:
    """Correlations of pairs; columns with the same missing rows are ranked once."""

    def __init__(self, values: Sequence[Tensor], measure: str) -> None:
        self._values, self._there = values, [~value.isnan() for value in values]
        self._of: Callable[[Tensor, Tensor], float] = spearman if measure == "spearman" else _kendall
        self._spearman = measure == "spearman"
        self._ranks: dict[int, Tensor] = {}

    def __call__(self, a: int, b: int) -> float:
        there = self._there[a] & self._there[b]
        if int(there.sum()) < 2:
            return math.nan
        if self._spearman and torch.equal(self._there[a], self._there[b]):
            return float(self._unit_ranks(a) @ self._unit_ranks(b))
        return self._of(self._values[a][there], self._values[b][there])

    def _unit_ranks(self, at: int) -> Tensor:
        """Centred ranks of length 1, so that Pearson's correlation is a dot product. NaN for a constant column."""
        if at not in self._ranks:
            ranks = average_ranks(self._values[at][self._there[at]])
            ranks -= ranks.mean()
            self._ranks[at] = ranks / ranks.norm()
        return self._ranks[at]


def _kendall(a: Tensor, b: Tensor) -> float:
    try:
        from scipy.stats import kendalltau
    except ImportError:
        raise InputError("Kendall's correlation needs scipy: pip install 'donod-fast[criteria]'") from None
    return float(kendalltau(a.numpy(), b.numpy()).statistic)


__all__ = ["AS_IS", "CORRELATIONS", "RANKED", "Comparison", "compare_columns"]
