"""Which column TOPSIS follows, and why: the variation of a column relative to its size.

TOPSIS (arXiv 2504.14810, A.5) divides a column by its L2 norm. Its standard deviation then is σ/√(σ² + μ²), with mean μ
and standard deviation σ of the column: 1 if the mean is 0, and almost 0 if all values are nearly equal. With the first
step of AdamW, ‖U‖² essentially counts the weights whose gradient exceeds eps. Where eps is small against the gradients,
these are nearly all of them for every sample. So NOD is almost constant, and at equal weights it has almost no
influence. Weights divided by these standard deviations give both columns the same influence, and so do, more or less,
columns divided by their range.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from donod_fast.kernels import topsis
from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.selection.rank_correlation import spearman
from donod_fast.selection.ranking import Ranking, ScoreColumns, rank
from donod_fast.studies.sensitivity.settings import NOD_HIGH, Setting

_CONSTANT = 1e-6  # of a column's size: about the rounding of scores in float32


@dataclass(frozen=True, slots=True)
class Spread:
    """Variation of DON and NOD over the scored rows.

    Attributes:
        don, nod: coefficient of variation σ/|μ| (inf if the mean is 0).
        nod_say: NOD's share of the two spreads in TOPSIS at equal weights; 0.5 if both have the same influence.
        topsis_don, topsis_nod: rank correlation of the closeness with DON and with −NOD.
        don_nod: rank correlation of DON with −NOD.
    """

    don: float
    nod: float
    nod_say: float
    topsis_don: float
    topsis_nod: float
    don_nod: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ScoringSpread:
    """Spread of one scoring, and agreement of its DON with others.

    Attributes:
        name: name of the scoring.
        spread: spread of its columns.
        balanced: weights that would balance them.
        default: rank correlation of its DON with that of the default.
        sgd: rank correlation of its DON with that of SGD; None if SGD is not part of the study.
    """

    name: str
    spread: Spread
    balanced: tuple[float, float]
    default: float
    sgd: float | None

    def as_row(self) -> dict[str, Any]:
        """Plain values, for a CSV file."""
        return {
            "scoring": self.name,
            **self.spread.as_dict(),
            "balanced_don": self.balanced[0],
            "balanced_nod": self.balanced[1],
            "don_with_default": self.default,
            "don_with_sgd": "" if self.sgd is None else self.sgd,
        }


def spread(columns: ScoreColumns, normalise: str = DEFAULT_NORMALISE) -> Spread:
    """Spread over the scored rows of a table, under TOPSIS with a normalisation."""
    don, nod = _scored(columns)
    closeness = topsis(don, nod, normalise=normalise)
    don_spread, nod_spread = _normalised_spread(don, normalise), _normalised_spread(nod, normalise)
    total = don_spread + nod_spread
    return Spread(
        _variation(don),
        _variation(nod),
        nod_spread / total if total else 0.5,
        spearman(closeness, don),
        spearman(closeness, -nod),
        spearman(don, -nod),
    )


def balanced_weights(columns: ScoreColumns, normalise: str = DEFAULT_NORMALISE) -> tuple[float, float]:
    """Weights of DON and NOD with sum 1 that give both columns the same standard deviation in TOPSIS.

    The ranking is the same as by TOPSIS on columns divided by their standard deviations. The weights are equal if a
    column is constant up to rounding (NOD under ``sign``), because otherwise its rounding errors would be amplified.
    """
    first, second = _scored(columns)
    don, nod = _normalised_spread(first, normalise), _normalised_spread(second, normalise)
    if min(_normalised_spread(first, "vector"), _normalised_spread(second, "vector")) < _CONSTANT:
        return 0.5, 0.5
    return nod / (don + nod), don / (don + nod)


def ranked(columns: ScoreColumns, setting: Setting) -> Ranking:
    """The ranking by a setting.

    Raises:
        InputError: see :func:`donod_fast.selection.ranking.rank`.
    """
    if setting.method == NOD_HIGH:
        return rank(ScoreColumns(columns.row, columns.don, -columns.nod, columns.loss), "nod")
    weights = balanced_weights(columns, setting.normalise) if setting.weights is None else setting.weights
    return rank(columns, setting.method, weights=weights, normalise=setting.normalise)


def _scored(columns: ScoreColumns) -> tuple[Tensor, Tensor]:
    scored = ~(columns.don.isnan() | columns.nod.isnan())
    return columns.don[scored], columns.nod[scored]


def _normalised_spread(column: Tensor, normalise: str) -> float:
    """Standard deviation of the column divided by its size, up to a power of n that both columns share."""
    if normalise == "range":
        size = float(column.max() - column.min())
    else:
        size = float(column.square().mean().sqrt() if normalise == "vector" else column.abs().mean())
    return float(column.std(correction=0)) / size if size else 0.0


def _variation(column: Tensor) -> float:
    mean = abs(float(column.mean()))
    return float(column.std(correction=0)) / mean if mean else math.inf


__all__ = ["ScoringSpread", "Spread", "balanced_weights", "ranked", "spread"]
