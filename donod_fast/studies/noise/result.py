"""Result of the noise study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.core.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of the best rows is still among the best after they were damaged.

    Attributes:
        update: name of the update that scored.
        kind: of damage.
        estimate: mean over seeds and its interval.
        by_seed: the share for each seed.
    """

    update: str
    kind: str
    estimate: Estimate
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Separation:
    """How one score tells damaged rows from clean ones.

    Attributes:
        update: name of the update that scored.
        kind: of damage.
        score: one of :data:`SCORES`.
        auc: probability that a clean row ranks above a damaged one.
        kept: share of the damaged rows among those kept.
    """

    update: str
    kind: str
    score: str
    auc: Estimate
    kept: Estimate


@dataclass(frozen=True)
class NoiseResult:
    """Result of the study.

    Attributes:
        settings: of the run, plain values.
        overlaps: one for each update and kind.
        separations: one for each update, kind and score.
        unchanged: by kind, rows that this kind of damage does not change (they stay clean); over all seeds.
        unscored: rows without scores, clean or damaged; they are left out of every figure.
    """

    settings: Mapping[str, Any]
    overlaps: tuple[Overlap, ...]
    separations: tuple[Separation, ...]
    unchanged: Mapping[str, int]
    unscored: int


__all__ = ["NoiseResult", "Overlap", "Separation"]
