"""Noise robustness (DONOD, arXiv 2504.14810, §4.4): how do the scores react to rows that were damaged on purpose?

The study answers two questions for each update and each kind of damage:

- *Overlap.* The best 20 % by TOPSIS are damaged, and only those; then all rows are ranked again. What share of the
  old best 20 % is among the new best 20 %? The paper reports 0.387 for masked words. A ranking that ignores damage
  gives 1, and a ranking that drops every damaged row gives 0.
- *Separation.* A random share of the rows is damaged. What is the probability that a clean row ranks above a damaged
  one (AUC; 0.5 is chance, below 0.5 the score prefers damage), and what share of the damaged rows is kept at 30 %?

Each seed draws its own rows and damage, so an interval over seeds covers both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.keeping import keep as kept_rows
from donod_fast.selection.ranking import rank
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.corruptions import corrupt
from donod_fast.studies.core.scored import Scores, ScoringCells
from donod_fast.studies.core.selecting import merits
from donod_fast.studies.core.statistics import Estimate, auc, mean_interval, overlap
from donod_fast.studies.core.study_data import SeedRows, StudyData
from donod_fast.studies.core.tables import need
from donod_fast.studies.noise.report import write_noise_report
from donod_fast.studies.noise.result import NoiseResult, Overlap, Separation
from donod_fast.studies.noise.settings import NoiseSettings

SCORES = ("topsis", "don", "nod", "nodon", "loss", "entropy")
"""Scores whose separation is measured: the ranking methods of these names, and entropy (low first)."""


@dataclass(frozen=True)
class _Figures:
    """Results of one seed, update and kind of damage."""

    overlap: float
    auc: Mapping[str, Estimate]
    kept: Mapping[str, float]
    unchanged: int
    unscored: int


def run_noise(
    out: Path,
    model: str | Path | LoadedModel,
    data: StudyData,
    settings: NoiseSettings | None = None,
    *,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> NoiseResult:
    """Run the study, or resume it.

    Writes ``report.md``, ``overlap.csv``, ``separation.csv``, ``result.json`` and, if matplotlib is installed,
    ``noise.png`` into ``out``.

    Args:
        out: the study's folder; scores are cached in its ``cells``.
        model: the scoring model.
        data: the rows to damage; its held-out part is not used.
        settings: seeds, kinds of damage, updates and shares; None for the defaults.
        cells: a folder whose finished cells are used and added to; None for ``out``.
        on_cell: called with each finished cell.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    need("scipy", "study")
    settings = settings or NoiseSettings()
    rows = SeedRows(data.read(), settings.rows, settings.seeds)
    scoring = ScoringCells(CellStore(out if cells is None else cells, on_cell), model, data.masks)
    figures: dict[tuple[str, str], list[_Figures]] = {}
    for seed in range(settings.seeds):
        clean = rows.of(seed)
        for name, update in settings.updates.items():
            before = scoring.score(clean, update)
            for kind in settings.kinds:
                study = _Study(scoring, update, clean, before, kind, seed, settings.normalise)
                figures.setdefault((name, kind), []).append(
                    study.figures(settings.top, settings.planted, settings.keep)
                )
    recorded = {
        **scoring.describe(),
        **rows.as_dict(),
        "skip": data.skip,
        **settings.as_dict(),
        "masks": data.mask_values(),
    }
    result = _summary(recorded, figures)
    write_noise_report(out, result)
    return result


class _Study:
    """One seed's rows under one update and one kind of damage."""

    def __init__(
        self,
        scoring: ScoringCells,
        update: UpdateSettings,
        clean: Sequence[Mapping[str, Any]],
        before: Scores,
        kind: str,
        seed: int,
        normalise: str,
    ) -> None:
        self._scoring, self._update, self._before, self._normalise = scoring, update, before, normalise
        # Each row has its own random generator, so its damage does not depend on the other rows.
        self._damaged = [corrupt(row, kind, Random(f"{seed}/{kind}/{i}"), clean) for i, row in enumerate(clean)]
        self._can = [i for i, row in enumerate(clean) if self._damaged[i] != row]
        self._order = Random(f"{seed}/planted").sample(range(len(clean)), len(clean))

    def figures(self, top: float, planted: float, keep: float) -> _Figures:
        """Score this seed's rows with the best rows damaged, and with the planted rows damaged."""
        best = self._best(self._before, top)
        changed = [i for i in best if i in set(self._can)]
        bad = [i for i in self._order if i in set(self._can)][: max(1, round(planted * len(self._order)))]
        # Both sets are scored in one request, so a row in both is scored once.
        places = sorted({*changed, *bad})
        after = self._scoring.score([self._damaged[i] for i in places], self._update)
        position = {place: at for at, place in enumerate(places)}

        def mixed(which: Sequence[int]) -> Scores:
            return self._before.replaced(which, after.picked([position[i] for i in which]))

        again = self._best(mixed(changed), top)
        scores = mixed(bad)
        is_bad = torch.zeros(len(self._order), dtype=torch.bool)
        is_bad[bad] = True
        found = {name: _separated(scores, name, is_bad, keep, self._normalise) for name in SCORES}
        return _Figures(
            overlap=overlap(best, again),
            auc={name: value for name, (value, _) in found.items()},
            kept={name: share for name, (_, share) in found.items()},
            unchanged=len(self._order) - len(self._can),
            unscored=int(self._before.don.isnan().sum() + after.don.isnan().sum()),
        )

    def _best(self, scores: Scores, share: float) -> list[int]:
        found: list[int] = kept_rows(rank(scores.columns(), normalise=self._normalise), keep=share).tolist()
        return found


def _separated(scores: Scores, name: str, is_bad: Tensor, keep: float, normalise: str) -> tuple[Estimate, float]:
    """AUC of clean above damaged rows, and the share of the damaged rows that is among the best ``keep``."""
    merit = -scores.entropy if name == "entropy" else merits(scores.columns(), name, normalise=normalise)
    there = ~merit.isnan()
    merit, is_bad = merit[there], is_bad[there]
    if not is_bad.any() or is_bad.all():
        raise InputError("no row, or every row, is damaged and scored: use more rows or another share")
    best = merit.argsort(descending=True, stable=True)[: max(1, math.floor(keep * len(merit) + 0.5))]
    return auc(merit[~is_bad].tolist(), merit[is_bad].tolist()), float(is_bad[best].sum() / is_bad.sum())


def _summary(settings: Mapping[str, Any], figures: Mapping[tuple[str, str], Sequence[_Figures]]) -> NoiseResult:
    overlaps, separations = [], []
    for (update, kind), some in figures.items():
        shares = tuple(one.overlap for one in some)
        overlaps.append(Overlap(update, kind, _share(shares), shares))
        for score in SCORES:
            aucs = [one.auc[score] for one in some]
            value = aucs[0] if len(aucs) == 1 else _share([one.value for one in aucs])
            separations.append(Separation(update, kind, score, value, _share([one.kept[score] for one in some])))
    first = next(iter(settings["updates"]))
    return NoiseResult(
        settings=settings,
        overlaps=tuple(overlaps),
        separations=tuple(separations),
        unchanged={kind: sum(one.unchanged for one in some) for (name, kind), some in figures.items() if name == first},
        unscored=sum(one.unscored for some in figures.values() for one in some),
    )


def _share(values: Sequence[float]) -> Estimate:
    """Mean over seeds with Student's t interval, clipped to [0, 1]."""
    found = mean_interval(values)
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


__all__ = ["SCORES", "run_noise"]
