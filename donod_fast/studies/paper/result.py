"""Result of a study of the paper: the grid and the further parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.studies.evidence.result import EvidenceStudy
from donod_fast.studies.focus.result import FocusResult
from donod_fast.studies.noise.result import NoiseResult
from donod_fast.studies.paper.comparisons import Comparison
from donod_fast.studies.paper.plane import PlaneEnd
from donod_fast.studies.paper.published import Verdict
from donod_fast.studies.paper.recipe import PaperRecipe
from donod_fast.studies.sensitivity.result import AblationStudy
from donod_fast.studies.stability.result import StabilityResult


@dataclass(frozen=True)
class PaperStudy:
    """Result of the study.

    Attributes:
        recipe: what was run.
        command: the command that ran it; "" if Python did.
        grid: one row a training.
        comparisons: differences from random draws and from all rows.
        verdict: what the losses show against random draws, in words (Markdown).
        plane: both ends of each corpus's ranking in the plane of NOD and DON.
        noise, stability, ablation: results by corpus; empty if the recipe has no such part.
        focus: result over all corpora; None if the recipe has no such part.
        verdicts: by table or figure of the paper, whether our numbers can be compared with it.
        cells, cached: number of cells, and of those that were there before this run.
        seconds: wall time of all cells, also of earlier runs.
    """

    recipe: PaperRecipe
    command: str
    grid: EvidenceStudy = field(repr=False)
    comparisons: Sequence[Comparison] = field(repr=False)
    verdict: str
    plane: Sequence[PlaneEnd]
    noise: Mapping[str, NoiseResult] = field(repr=False)
    stability: Mapping[str, StabilityResult] = field(repr=False)
    ablation: Mapping[str, AblationStudy] = field(repr=False)
    focus: FocusResult | None = field(repr=False)
    verdicts: Mapping[str, Verdict]
    cells: int
    cached: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The result in short, as plain values."""
        return {
            "name": self.recipe.name,
            "trainings": len(self.grid.rows),
            "comparisons": [one.as_dict() for one in self.comparisons],
            "comparable": {name: one.comparable for name, one in self.verdicts.items()},
            "reasons": {name: list(one.reasons) for name, one in self.verdicts.items()},
            "cells": self.cells,
            "cached": self.cached,
            "seconds": self.seconds,
        }


__all__ = ["PaperStudy"]
