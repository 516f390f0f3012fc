"""Result of the output-layer study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.core.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Moved:
    """How far one matrix, or all of one layer, moved in a fine-tuning.

    Attributes:
        corpus, optimizer: of the fine-tuning.
        name: of the matrix or layer.
        layer: whether it is a layer (all its parameters as one vector).
        weights: how many.
        delta: ‖W_after − W_before‖_F, mean over seeds.
        relative: over ‖W_before‖_F.
        per_weight: over √weights: the root of the mean square.
        output: whether it is the output layer.
    """

    corpus: str
    optimizer: str
    name: str
    layer: bool
    weights: int
    delta: float
    relative: float
    per_weight: float
    output: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether some parameters rank samples as the output layer does.

    Attributes:
        update: that scored.
        name: of a matrix, of a layer, or of what is taken together.
        kind: ``"together"``, ``"layer"`` or ``"matrix"``.
        don, nod, closeness: Spearman's correlation of DON, NOD and TOPSIS with the output layer's.
        best: overlap of the best by TOPSIS with the output layer's best.
        nod_share: its part of the whole model's ‖U‖², mean over samples.
    """

    update: str
    name: str
    kind: str
    don: Estimate
    nod: Estimate
    closeness: Estimate
    best: Estimate
    nod_share: float


@dataclass(frozen=True)
class FocusResult:
    """Result of the study.

    Attributes:
        settings: of the run, plain values.
        moved: every matrix and layer for each corpus and optimizer, the farthest first.
        agreements: by update, what is taken together first, then layers, then matrices.
    """

    settings: Mapping[str, Any]
    moved: tuple[Moved, ...]
    agreements: tuple[Agreement, ...]


__all__ = ["Agreement", "FocusResult", "Moved"]
