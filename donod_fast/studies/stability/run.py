"""Stability over proportions (DONOD, arXiv 2504.14810, Figure 4): how much of a corpus is worth training on?

A corpus is scored once; each method keeps 10 %, 20 %, … 100 % of it; the model is fine-tuned on every selection for
the same number of epochs, and its loss on held-out rows is measured (beside anything else that is asked for). Every
seed has rows, orders and damage of its own, so that an interval over seeds covers them; methods are compared with
random seed by seed, on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from donod_fast.data.masking import MaskSettings
from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.kmeans_ifd import KMEANS_IFD
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.corruptions import plant
from donod_fast.studies.core.finetune import FineTuneSettings, fine_tune, tokenized
from donod_fast.studies.core.heldout import heldout_loss
from donod_fast.studies.core.scored import ScoringCells, digest
from donod_fast.studies.core.selecting import Selection, criteria_for, selected_rows
from donod_fast.studies.core.statistics import mean_interval
from donod_fast.studies.core.tables import Data, need, read_rows
from donod_fast.studies.stability.report import write_stability_report
from donod_fast.studies.stability.result import Point, StabilityResult

PROPORTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
METHODS = ("topsis", "random", "nod", "loss")
LOSS = "held-out loss"
"""The measure that is always taken, in nats a scored token; low is good."""

Measure = Callable[[Any, Any], float]
"""A trained model and its tokenizer → a number, such as pass@1."""

TRAINING = FineTuneSettings(epochs=1.0, learning_rate=1e-4, step_tokens=1024)
"""What each selection is trained by, unless told otherwise; a step is some five rows of GSM8K."""


@dataclass(frozen=True)
class _Trained:
    values: Mapping[str, float]
    tokens: int
    damaged: float


def run_stability(
    out: Path,
    model: str | Path | LoadedModel,
    data: Data,
    heldout: Data,
    *,
    skip: int = 0,
    rows: int = 400,
    seeds: int = 3,
    heldout_rows: int | None = 200,
    proportions: Sequence[float] = PROPORTIONS,
    methods: Sequence[str] = METHODS,
    references: Sequence[str] = (),
    update: UpdateSettings | None = None,
    training: FineTuneSettings = TRAINING,
    planted: Mapping[str, float] | None = None,
    measures: Mapping[str, Measure] | None = None,
    masks: MaskSettings | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> StabilityResult:
    """Run the study, or go on with one; writes ``report.md``, ``stability.csv``, ``result.json`` and, where matplotlib
    is installed, ``stability.png`` into ``out``.

    Args:
        out: the study's folder; finished work is kept in its ``cells``.
        model: the model that scores and is trained.
        data: records or paths of files to select from.
        heldout: records or paths of files to measure the loss on.
        skip: rows at the start of ``data`` to leave out.
        rows: of each seed. Seeds have different rows while there are enough.
        seeds: how many times rows, damage and orders are drawn.
        heldout_rows: the first so many of ``heldout``; None for all.
        proportions: to keep.
        methods: of ranking, by a column too (``el2n``, ``ifd``): what they need is scored. Not ``kmeans-ifd``.
        references: reference sets, for methods by influence.
        update: that scores.
        training: of each selection; its seed is replaced by the study's.
        planted: by kind of damage, the share of rows to damage beforehand.
        measures: more measures, by name; a name stands for what it measures in the cells that are kept.
        masks: how rows are read and masked.
        on_cell: called with each finished cell.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    need("scipy", "study")
    need("trl", "train")
    if seeds < 1 or not methods or not proportions or any(not 0 < p <= 1 for p in proportions):
        raise InputError("seeds ≥ 1, a method and proportions in (0, 1] are needed")
    for method in methods:
        Selection(method, keep=0.5)  # an unknown one is refused before any work is done
    if KMEANS_IFD in methods:
        raise InputError(f"this study does not embed questions, which {KMEANS_IFD} needs; the threshold study does")
    pool = read_rows(data, skip=skip)
    if rows > len(pool):
        raise InputError(f"rows is {rows}, but there are only {len(pool)} after the first {skip}; ask for fewer")
    unseen = read_rows(heldout, count=heldout_rows)
    store = CellStore(out, on_cell)
    scoring = ScoringCells(store, model, masks, criteria_for(methods, references))
    trainer = _Trainer(store, scoring.loaded, unseen, dict(measures or {}), masks)
    disjoint = rows * seeds <= len(pool)
    order = Random("rows").sample(range(len(pool)), len(pool))
    found: dict[tuple[str, float], list[_Trained]] = {}
    for seed in range(seeds):
        drawn = order[seed * rows : (seed + 1) * rows] if disjoint else Random(f"rows/{seed}").sample(order, rows)
        records, kinds = plant([pool[place] for place in sorted(drawn)], planted or {}, seed=seed)
        columns = scoring.score(records, update or UpdateSettings()).columns()
        for method in methods:
            for proportion in proportions:
                places = selected_rows(columns, Selection(method, keep=float(proportion)), seed=seed)
                values, tokens = trainer.trained([records[i] for i in places], replace(training, seed=seed))
                damaged = sum(bool(kinds[i]) for i in places) / len(places)
                found.setdefault((method, proportion), []).append(_Trained(values, tokens, damaged))
    base, error = trainer.base()
    settings = {
        **scoring.describe(),
        "pool": len(pool),
        "skip": skip,
        "rows": rows,
        "seeds": seeds,
        "disjoint": disjoint,
        "heldout_rows": len(unseen),
        "proportions": list(proportions),
        "methods": list(methods),
        "update": (update or UpdateSettings()).as_dict(),
        "training": training.as_dict(),
        "planted": dict(planted or {}),
        "masks": asdict(masks or MaskSettings()),
    } | ({"references": list(references)} if references else {})
    points = [
        _point(found, method, proportion, measure)
        for measure in base
        for method in methods
        for proportion in proportions
    ]
    result = StabilityResult(settings, tuple(points), base, error)
    write_stability_report(out, result)
    return result


class _Trainer:
    """Trains and measures; equal selections with equal seeds are one cell."""

    def __init__(
        self,
        store: CellStore,
        loaded: LoadedModel,
        heldout: Sequence[Mapping[str, Any]],
        measures: Mapping[str, Measure],
        masks: MaskSettings | None,
    ) -> None:
        self._store, self._loaded, self._heldout, self._measures, self._masks = store, loaded, heldout, measures, masks
        tokenizer = loaded.tokenizer
        self._decisive = {
            "fingerprint": loaded.fingerprint,
            "dtype": str(loaded.dtype),
            "tokenizer": digest([sorted(tokenizer.get_vocab().items()), getattr(tokenizer, "chat_template", None)]),
            "masks": asdict(masks or MaskSettings()),
            "heldout": digest(heldout),
            "measures": sorted(measures),
        }

    def trained(
        self, records: Sequence[Mapping[str, Any]], settings: FineTuneSettings
    ) -> tuple[Mapping[str, float], int]:
        """The measures after training on some records, and the tokens of that training."""

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


__all__ = ["LOSS", "METHODS", "PROPORTIONS", "TRAINING", "Measure", "Point", "StabilityResult", "run_stability"]
