"""Result of the noise study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.core.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Overlap:
    """Share of the best rows that is still among the best after these rows were damaged.

    Attributes:
        update: name of the update that scored.
        kind: kind of damage.
        estimate: mean over seeds and its interval.
        by_seed: the share for each seed.
    """

    update: str
    kind: str
    estimate: Estimate
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Separation:
    """Separation of damaged from clean rows by one score.

    Attributes:
        update: name of the update that scored.
        kind: kind of damage.
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
        settings: settings of the run, plain values.
        overlaps: one for each update and kind.
        separations: one for each update, kind and score.
        unchanged: by kind, rows that this kind of damage does not change (they stay clean); over all seeds.
        unscored: rows without scores, clean or damaged; they are excluded from all results.
    """

    settings: Mapping[str, Any]
    overlaps: tuple[Overlap, ...]
    separations: tuple[Separation, ...]
    unchanged: Mapping[str, int]
    unscored: int


__all__ = ["NoiseResult", "Overlap", "Separation"]
