"""Stability over proportions (DONOD, arXiv 2504.14810, Figure 4): how much of a corpus is worth training on?

A corpus is scored once, and each method keeps 10 %, 20 %, … 100 % of it. The model is fine-tuned on every selection
for the same number of epochs, and its loss on held-out rows is measured (with further measures if requested). Each
seed draws its own rows, orders and damage, so an interval over seeds covers all of them. Methods are compared with
random seed by seed, on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from donod_fast.data.masking import MaskSettings
from donod_fast.models.loading import LoadedModel
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.corruptions import plant
from donod_fast.studies.core.finetune import fine_tune, tokenized
from donod_fast.studies.core.heldout import heldout_loss
from donod_fast.studies.core.scored import ScoringCells, digest, model_key
from donod_fast.studies.core.selecting import Selection, criteria_for, selected_rows
from donod_fast.studies.core.settings import FineTuneSettings
from donod_fast.studies.core.statistics import mean_interval
from donod_fast.studies.core.study_data import SeedRows, StudyData
from donod_fast.studies.core.tables import need
from donod_fast.studies.stability.report import write_stability_report
from donod_fast.studies.stability.result import Point, StabilityResult
from donod_fast.studies.stability.settings import StabilitySettings

LOSS = "held-out loss"
"""The default measure, held-out loss in nats per scored token; lower is better."""

Measure = Callable[[Any, Any], float]
"""A trained model and its tokenizer → a number, such as pass@1."""


@dataclass(frozen=True)
class _Trained:
    values: Mapping[str, float]
    tokens: int
    damaged: float


def run_stability(
    out: Path,
    model: str | Path | LoadedModel,
    data: StudyData,
    settings: StabilitySettings | None = None,
    *,
    measures: Mapping[str, Measure] | None = None,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> StabilityResult:
    """Run the study, or resume it.

    Writes ``report.md``, ``stability.csv``, ``result.json`` and, if matplotlib is installed, ``stability.png`` into
    ``out``.

    Args:
        out: the study's folder; finished work is cached in its ``cells``.
        model: the model that scores and is trained.
        data: the rows to select from, and the held-out rows.
        settings: seeds, proportions, methods and training; None for the defaults.
        measures: further measures by name; the name identifies the measure in the cached cells.
        cells: a folder whose finished cells are used and added to; None for ``out``.
        on_cell: called with each finished cell.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    need("scipy", "study")
    need("trl", "train")
    settings = settings or StabilitySettings()
    rows = SeedRows(data.read(), settings.rows, settings.seeds)
    heldout = data.read_heldout()
    store = CellStore(out if cells is None else cells, on_cell)
    scoring = ScoringCells(store, model, data.masks, criteria_for(settings.methods, settings.references))
    trainer = _Trainer(store, scoring.loaded, heldout, dict(measures or {}), data.masks)
    grid = [(method, proportion) for method in settings.methods for proportion in settings.proportions]
    found: dict[tuple[str, float], list[_Trained]] = {}
    for seed in range(settings.seeds):
        records, kinds = plant(rows.of(seed), settings.planted, seed=seed)
        columns = scoring.score(records, settings.update).columns()
        for method, proportion in grid:
            chosen = Selection(method, keep=float(proportion))
            places = selected_rows(columns, chosen, seed=seed, normalise=settings.normalise)
            values, tokens = trainer.trained([records[i] for i in places], replace(settings.training, seed=seed))
            damaged = sum(bool(kinds[i]) for i in places) / len(places)
            found.setdefault((method, proportion), []).append(_Trained(values, tokens, damaged))
    base, error = trainer.base()
    recorded = {
        **scoring.describe(),
        **rows.as_dict(),
        "skip": data.skip,
        "heldout_rows": len(heldout),
        **settings.as_dict(),
        "masks": data.mask_values(),
    }
    points = [_point(found, method, proportion, measure) for measure in base for method, proportion in grid]
    result = StabilityResult(recorded, tuple(points), base, error)
    write_stability_report(out, result)
    return result


class _Trainer:
    """Trains and measures; equal selections with equal seeds share one cell."""

    def __init__(
        self,
        store: CellStore,
        loaded: LoadedModel,
        heldout: Sequence[Mapping[str, Any]],
        measures: Mapping[str, Measure],
        masks: MaskSettings,
    ) -> None:
        self._store, self._loaded, self._heldout, self._measures, self._masks = store, loaded, heldout, measures, masks
        self._decisive = {
            **model_key(loaded, masks),
            "dtype": str(loaded.dtype),
            "heldout": digest(heldout),
            "measures": sorted(measures),
        }

    def trained(
        self, records: Sequence[Mapping[str, Any]], settings: FineTuneSettings
    ) -> tuple[Mapping[str, float], int]:
        """Train on some records; return the measures of the trained model and the tokens of the training."""

        def work(_: Path) -> Mapping[str, Any]:
            tuned = fine_tune(self._loaded, tokenized(self._loaded, records, self._masks), settings)
            return {**self._measured(tuned.model), **tuned.as_dict()}

        decisive = {**self._decisive, "records": digest(records), "training": settings.as_dict()}
        result = self._store.result("trained", decisive, work).result
        return result["values"], int(result["tokens"])

    def base(self) -> tuple[Mapping[str, float], float]:
        """The measures of the untrained model, and the standard error of its loss."""
        cell = self._store.result("base", self._decisive, lambda _: self._measured(self._loaded.model))
        return cell.result["values"], float(cell.result["error"])

    def _measured(self, model: Any) -> dict[str, Any]:
        tokenizer = self._loaded.tokenizer
        held = heldout_loss(model, self._heldout, tokenizer=tokenizer, masks=self._masks)
        others = {name: float(measure(model, tokenizer)) for name, measure in self._measures.items()}
        return {"values": {LOSS: held.loss, **others}, "error": held.error}


def _point(found: Mapping[tuple[str, float], Sequence[_Trained]], method: str, proportion: float, name: str) -> Point:
    some = found[method, proportion]
    values = tuple(one.values[name] for one in some)
    against = found.get(("random", proportion)) if method != "random" else None
    difference = None
    if against is not None:
        difference = mean_interval([value - other.values[name] for value, other in zip(values, against, strict=True)])
    return Point(
        method,
        proportion,
        name,
        mean_interval(values),
        difference,
        values,
        sum(one.tokens for one in some) / len(some),
        sum(one.damaged for one in some) / len(some),
    )


__all__ = ["LOSS", "Measure", "run_stability"]
