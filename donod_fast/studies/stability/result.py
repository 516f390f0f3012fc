"""Result of the stability study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.core.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Point:
    """Result of a method at a proportion, over seeds.

    Attributes:
        method: method of selection.
        proportion: kept share of the rows.
        measure: :data:`LOSS`, or the name of a further measure.
        estimate: mean over seeds and its interval.
        against_random: paired difference from random at this proportion; None for random itself, or without random.
        by_seed: value of each seed.
        tokens: tokens trained on, mean over seeds.
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
        settings: settings of the run, plain values.
        points: results by measure, method and proportion.
        base: value of the untrained model by measure.
        heldout_error: standard error over held-out rows of the untrained model's loss.
    """

    settings: Mapping[str, Any]
    points: tuple[Point, ...]
    base: Mapping[str, float]
    heldout_error: float


__all__ = ["Point", "StabilityResult"]
