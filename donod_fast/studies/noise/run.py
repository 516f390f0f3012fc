"""Noise robustness (DONOD, arXiv 2504.14810, §4.4): what do the scores make of rows that were damaged on purpose?

Two questions, for each update and each kind of damage:

- *Overlap.* The best 20 % by TOPSIS are damaged, and only those; all rows are ranked again. What share of the old best
  20 % is among the new? The paper reports 0.387 for masked words; a ranking that is blind to damage keeps 1, one
  that drops every damaged row 0.
- *Separation.* A share of the rows, drawn at random, is damaged. How probably does a clean row rank above a damaged
  one (AUC; 0.5 is blind, below it damage is preferred), and what share of the damaged rows is kept at 30 %?

Every seed has rows and damage of its own, so that an interval over seeds covers both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from donod_fast.data.masking import MaskSettings
from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.keeping import keep as kept_rows
from donod_fast.selection.ranking import rank
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.corruptions import KINDS, corrupt
from donod_fast.studies.core.scored import Scores, ScoringCells
from donod_fast.studies.core.selecting import merits
from donod_fast.studies.core.statistics import Estimate, auc, mean_interval, overlap
from donod_fast.studies.core.tables import Data, need, read_rows
from donod_fast.studies.noise.report import write_noise_report
from donod_fast.studies.noise.result import NoiseResult, Overlap, Separation

UPDATES: Mapping[str, UpdateSettings] = {
    "adamw": UpdateSettings("adamw"),
    "sgd": UpdateSettings("sgd"),
    "adamw-bfloat16": UpdateSettings("adamw", storage_dtype="bfloat16"),
}
"""By name: AdamW from fresh state, plain SGD, and AdamW with W′ rounded to bfloat16."""

SCORES = ("topsis", "don", "nod", "nodon", "loss", "entropy")
"""What separates: the methods of ranking of these names, and low entropy first."""


@dataclass(frozen=True)
class _Figures:
    """Of one seed, update and kind."""

    overlap: float
    auc: Mapping[str, Estimate]
    kept: Mapping[str, float]
    unchanged: int
    unscored: int


def run_noise(
    out: Path,
    model: str | Path | LoadedModel,
    data: Data,
    *,
    skip: int = 0,
    rows: int = 300,
    seeds: int = 5,
    kinds: Sequence[str] = tuple(KINDS),
    updates: Mapping[str, UpdateSettings] = UPDATES,
    top: float = 0.2,
    planted: float = 0.2,
    keep: float = 0.3,
    masks: MaskSettings | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> NoiseResult:
    """Run the study, or go on with one; writes ``report.md``, ``overlap.csv``, ``separation.csv``, ``result.json``
    and, where matplotlib is installed, ``noise.png`` into ``out``.

    Args:
        out: the study's folder; scores are kept in its ``cells``.
        model: the scoring model.
        data: records or paths of files.
        skip: rows at the start of the data to leave out.
        rows: of each seed. Seeds have different rows while there are enough.
        seeds: how many times rows and damage are drawn.
        kinds: of damage, see :data:`donod_fast.studies.core.corruptions.KINDS`.
        updates: to score with, by the name that reports give them.
        top: share of the rows that is damaged for the overlap.
        planted: share of the rows that is damaged for the separation.
        keep: share of the rows that is kept.
        masks: how rows are read and masked.
        on_cell: called with each finished cell.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    need("scipy", "study")
    _check(rows, seeds, kinds, updates, {"top": top, "planted": planted, "keep": keep})
    pool = read_rows(data, skip=skip)
    if rows > len(pool):
        raise InputError(f"rows is {rows}, but there are only {len(pool)} after the first {skip}; ask for fewer")
    scoring = ScoringCells(CellStore(out, on_cell), model, masks)
    disjoint = rows * seeds <= len(pool)
    figures: dict[tuple[str, str], list[_Figures]] = {}
    for seed in range(seeds):
        clean = [pool[place] for place in _drawn(len(pool), rows, seed, disjoint)]
        for name, update in updates.items():
            before = scoring.score(clean, update)
            for kind in kinds:
                study = _Study(scoring, update, clean, before, kind, seed)
                figures.setdefault((name, kind), []).append(study.figures(top, planted, keep))
    settings = {
        **scoring.describe(),
        "pool": len(pool),
        "skip": skip,
        "rows": rows,
        "seeds": seeds,
        "disjoint": disjoint,
        "kinds": list(kinds),
        "updates": {name: update.as_dict() for name, update in updates.items()},
        "top": top,
        "planted": planted,
        "keep": keep,
        "masks": asdict(masks or MaskSettings()),
    }
    result = _summary(settings, figures)
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
    ) -> None:
        self._scoring, self._update, self._before = scoring, update, before
        # Each row's damage has a draw of its own, so that a row is damaged alike whatever else is.
        self._damaged = [corrupt(row, kind, Random(f"{seed}/{kind}/{i}"), clean) for i, row in enumerate(clean)]
        self._can = [i for i, row in enumerate(clean) if self._damaged[i] != row]
        self._order = Random(f"{seed}/planted").sample(range(len(clean)), len(clean))

    def figures(self, top: float, planted: float, keep: float) -> _Figures:
        """The figures of this seed, from two rounds of scoring: the best damaged, and the planted ones."""
        best = kept_rows(rank(self._before.columns()), keep=top).tolist()
        changed = [i for i in best if i in set(self._can)]
        bad = [i for i in self._order if i in set(self._can)][: max(1, round(planted * len(self._order)))]
        # One request for both: a row that is in both is scored once.
        places = sorted({*changed, *bad})
        after = self._scoring.score([self._damaged[i] for i in places], self._update)
        position = {place: at for at, place in enumerate(places)}

        def mixed(which: Sequence[int]) -> Scores:
            return self._before.replaced(which, after.picked([position[i] for i in which]))

        again = kept_rows(rank(mixed(changed).columns()), keep=top).tolist()
        scores = mixed(bad)
        is_bad = torch.zeros(len(self._order), dtype=torch.bool)
        is_bad[bad] = True
        found = {name: _separated(scores, name, is_bad, keep) for name in SCORES}
        return _Figures(
            overlap=overlap(best, again),
            auc={name: value for name, (value, _) in found.items()},
            kept={name: share for name, (_, share) in found.items()},
            unchanged=len(self._order) - len(self._can),
            unscored=int(self._before.don.isnan().sum() + after.don.isnan().sum()),
        )


def _separated(scores: Scores, name: str, is_bad: Tensor, keep: float) -> tuple[Estimate, float]:
    """AUC of clean over damaged rows, and the share of the damaged that the best ``keep`` of all rows hold."""
    merit = -scores.entropy if name == "entropy" else merits(scores.columns(), name)
    there = ~merit.isnan()
    merit, is_bad = merit[there], is_bad[there]
    if not is_bad.any() or is_bad.all():
        raise InputError("no row, or every row, is damaged and scored: ask for more rows or another share")
    best = merit.argsort(descending=True, stable=True)[: max(1, math.floor(keep * len(merit) + 0.5))]
    return auc(merit[~is_bad].tolist(), merit[is_bad].tolist()), float(is_bad[best].sum() / is_bad.sum())


def _drawn(pool: int, rows: int, seed: int, disjoint: bool) -> list[int]:
    if disjoint:
        return sorted(Random("rows").sample(range(pool), pool)[seed * rows : (seed + 1) * rows])
    return sorted(Random(f"rows/{seed}").sample(range(pool), rows))


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
    """The mean over seeds with Student's interval, within [0, 1]."""
    found = mean_interval(values)
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


def _check(
    rows: int,
    seeds: int,
    kinds: Sequence[str],
    updates: Mapping[str, UpdateSettings],
    shares: Mapping[str, float],
) -> None:
    if rows < 10 or seeds < 1:
        raise InputError(f"rows must be at least 10 and seeds at least 1, got {rows} and {seeds}")
    if not kinds or not updates:
        raise InputError("at least one kind of damage and one update are needed")
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"unknown corruption {kind!r}; known are {', '.join(KINDS)}")
    for name, share in shares.items():
        if not 0 < share < 1:
            raise InputError(f"{name} is a share between 0 and 1, got {share}")


__all__ = ["SCORES", "UPDATES", "NoiseResult", "Overlap", "Separation", "run_noise"]
