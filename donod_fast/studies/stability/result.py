"""Result of the stability study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.core.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Point:
    """A method at a proportion, over seeds.

    Attributes:
        method: of selection.
        proportion: of the rows that is kept.
        measure: :data:`LOSS`, or the name of one that was asked for.
        estimate: mean over seeds and its interval.
        against_random: the same minus random's at this proportion, seed by seed; None for random itself, or without.
        by_seed: the values.
        tokens: trained on, mean over seeds.
        damaged: share of the selection that was damaged on purpose, mean over seeds.
    """

    method: str
    proportion: float
    measure: str
    estimate: Estimate
    against_random: Estimate | None
    by_seed: tuple[float, ...]
    tokens: float
    damaged: float


@dataclass(frozen=True)
class StabilityResult:
    """Result of the study.

    Attributes:
        settings: of the run, plain values.
        points: by measure, method and proportion.
        base: by measure, the untrained model's value.
        heldout_error: standard error over held-out rows of the untrained model's loss.
    """

    settings: Mapping[str, Any]
    points: tuple[Point, ...]
    base: Mapping[str, float]
    heldout_error: float


__all__ = ["Point", "StabilityResult"]
