"""Result of the output-layer study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.core.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Moved:
    """Change of one matrix, or of all parameters of a layer, in a fine-tuning.

    Attributes:
        corpus, optimizer: corpus and optimizer of the fine-tuning.
        name: name of the matrix or layer.
        layer: whether it is a layer (all its parameters as one vector).
        weights: number of weights.
        delta: ‖W_after − W_before‖_F, mean over seeds.
        relative: ``delta`` over ‖W_before‖_F.
        per_weight: ``delta`` over √weights, which is the root mean square.
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
    """Agreement of some parameters' ranking of samples with that of the output layer.

    Attributes:
        update: the update that scored.
        name: name of a matrix, a layer, or a group of parameters.
        kind: ``"together"``, ``"layer"`` or ``"matrix"``.
        don, nod, closeness: Spearman's correlation of DON, NOD and TOPSIS with the output layer's.
        best: overlap of the best by TOPSIS with the output layer's best.
        nod_share: its share of the whole model's ‖U‖², mean over samples.
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
        settings: settings of the run, plain values.
        moved: every matrix and layer for each corpus and optimizer, largest change first.
        agreements: by update: groups of parameters first, then layers, then matrices.
    """

    settings: Mapping[str, Any]
    moved: tuple[Moved, ...]
    agreements: tuple[Agreement, ...]


__all__ = ["Agreement", "FocusResult", "Moved"]
