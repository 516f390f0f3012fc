"""Measures of the sensitivity study and the ablation; each piece of work is a cached cell.

A corpus with planted damage is scored in several ways. A selection from it is trained with a fixed budget of tokens,
and its loss is measured on held-out rows. Equal selections with an equal seed share one cell, for any setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from donod_fast.data.settings import MaskSettings
from donod_fast.data.types import Record, Status, TokenizedSample
from donod_fast.errors import InputError
from donod_fast.kernels.scores import with_weight_decay
from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.scores.rows import to_table
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.keeping import keep
from donod_fast.selection.ranking import ScoreColumns, rescale_to_lr
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.core.corruptions import KINDS, plant
from donod_fast.studies.core.finetune import RowLosses, fine_tune, row_losses, tokenized
from donod_fast.studies.core.scored import digest
from donod_fast.studies.core.settings import FineTuneSettings
from donod_fast.studies.core.statistics import Estimate, auc
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.sensitivity.settings import ALL, CLEAN, EVERY, Scoring, Setting
from donod_fast.studies.sensitivity.spread import ranked
from donod_fast.studies.sensitivity.study_settings import DamageStudySettings

ANY = "any"
"""All kinds of damage together."""

_COLUMNS = ("row", "weight_dot_update", "update_norm", "don", "nod", "loss")


class Measured(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def text(self, *, signed: bool = False) -> str:
        """``−0.0132 ± 0.0021``; without the error if it is unknown."""
        number = f"{self.value:+.4f}" if signed else f"{self.value:.4f}"
        error = f" ± {self.error:.4f}" if math.isfinite(self.error) else ""
        return number.replace("-", "−") + error


@dataclass(frozen=True)
class DamagedCorpus:
    """Rows to select from with known damage, and rows to measure on.

    Attributes:
        records: the records that are scored and trained on.
        kinds: kind of the damage of each record, ``""`` for none.
        heldout: other rows, undamaged.
    """

    records: list[dict[str, Any]]
    kinds: list[str]
    heldout: list[dict[str, Any]]

    def damaged_share(self, rows: Sequence[int]) -> float:
        """Share of some rows that is damaged."""
        return sum(bool(self.kinds[row]) for row in rows) / len(rows)


def damaged_corpus(data: StudyData, shares: Mapping[str, float], *, seed: int = 0) -> DamagedCorpus:
    """Read the rows and plant the damage.

    Args:
        data: the rows to select from, and the held-out rows.
        shares: share of the rows by kind of damage.
        seed: seed of the damage.

    Raises:
        CorpusError: the data cannot be read.
        InputError: an unknown kind, shares above 1, or a kind that damages too few of the rows.
    """
    planted, kinds = plant(data.read(), shares, seed=seed)
    return DamagedCorpus(planted, kinds, data.read_heldout())


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of training on a selection.

    Attributes:
        losses: losses on the held-out rows.
        tokens: tokens trained on.
        steps: optimizer steps.
    """

    losses: RowLosses
    tokens: int
    steps: int


class Measures:
    """Scores, selections and trainings over one damaged corpus with one model.

    Args:
        store: store of the cells.
        model: folder or hub id of the model that scores, or the model in float32; copies of it are trained.
        corpus: rows and damage.
        training: training of each selection; the seed is replaced.
        masks: settings of reading and masking rows; None for the defaults.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(
        self,
        store: CellStore,
        model: str | Path | LoadedModel,
        corpus: DamagedCorpus,
        training: FineTuneSettings,
        masks: MaskSettings | None = None,
    ) -> None:
        self.store, self.corpus, self.training = store, corpus, training
        self._masks = masks or MaskSettings()
        self.loaded = model if isinstance(model, LoadedModel) else load_model(model, dtype="float32")
        self._model = self.loaded.name if isinstance(model, LoadedModel) else model
        self._lowered: dict[str, LoadedModel] = {"float32": self.loaded}
        self._samples: list[TokenizedSample] | None = None
        self._columns: dict[Scoring, ScoreColumns] = {}
        self._decisive: dict[str, Any] = {
            "model": self.loaded.fingerprint,
            "template": digest(getattr(self.loaded.tokenizer, "chat_template", None)),
            "records": digest(corpus.records),
        }
        if self._masks != MaskSettings():  # not always, so that earlier cells stay valid
            self._decisive["masks"] = self._masks.as_key()
        self._heldout = digest(corpus.heldout)

    @property
    def samples(self) -> list[TokenizedSample]:
        """The corpus in the form for training."""
        if self._samples is None:
            self._samples = tokenized(self.loaded, self.corpus.records, self._masks)
        return self._samples

    def columns(self, scoring: Scoring) -> ScoreColumns:
        """The scores of the corpus; another rate or decay costs no forward pass."""
        if scoring not in self._columns:
            self._columns[scoring] = self._scored(scoring)
        return self._columns[scoring]

    def separation(self, columns: ScoreColumns, setting: Setting) -> dict[str, dict[str, Estimate]]:
        """The separation by the ranking's value, by DON and by −NOD: see :func:`separation`."""
        ranking = ranked(columns, setting)
        value = torch.full((len(columns.row),), math.nan, dtype=torch.float64)
        value[ranking.order] = ranking.value  # rows are numbered by position
        scores = {"ranking": value, "don": columns.don, "nod": -columns.nod}
        return {name: separation(score, self.corpus.kinds) for name, score in scores.items()}

    def select(self, setting: Setting, share: float, seed: int = 0) -> tuple[int, ...]:
        """The rows that a setting keeps, in ascending order; equally many for each setting except ``all``.

        Raises:
            InputError: there is nothing to select from.
        """
        columns = self.columns(setting.scoring)
        ready = [i for i, x in enumerate(columns.don.tolist()) if math.isfinite(x)]
        if not ready:
            raise InputError("none of the rows has scores; `donod-fast score` gives the reasons")
        if setting.method == ALL:
            return tuple(ready)
        if setting.ranked:
            return tuple(sorted(keep(ranked(columns, setting), keep=float(share)).tolist()))
        count = max(1, math.floor(share * len(ready) + 0.5 + 1e-9))
        pool = [row for row in ready if not self.corpus.kinds[row]] if setting.method == CLEAN else ready
        if len(pool) < count:
            raise InputError(
                f"{share:g} of the rows are {count}, but only {len(pool)} are undamaged; plant or keep less"
            )
        return tuple(sorted(Random(f"{setting.method} {seed}").sample(pool, count)))

    def train(self, rows: Sequence[int], seed: int) -> Trained:
        """Train a copy of the model on some rows and measure its held-out losses; without rows it is not trained."""
        training = replace(self.training, seed=seed)
        settings = {
            **self._decisive,
            "rows": digest(sorted(rows)),
            "heldout": self._heldout,
            "training": training.as_dict() if rows else None,
        }

        def work(_: Path) -> Mapping[str, Any]:
            if not rows:
                losses, report = self._row_losses(self.loaded.model), {"tokens": 0, "steps": 0}
            else:
                tuned = fine_tune(self.loaded, [self.samples[row] for row in sorted(rows)], training)
                losses, report = self._row_losses(tuned.model), tuned.as_dict()
            return {**report, "heldout_loss": losses.loss, "sums": losses.sums, "row_tokens": losses.tokens}

        kept = self.store.result("train", settings, work).result
        return Trained(RowLosses(tuple(kept["sums"]), tuple(kept["row_tokens"])), kept["tokens"], kept["steps"])

    def _row_losses(self, model: Any) -> RowLosses:
        return row_losses(model, self.loaded.tokenizer, self.corpus.heldout, self._masks)

    def _scored(self, scoring: Scoring) -> ScoreColumns:
        base = scoring.base()
        kept = self.store.result(
            "scores", {**self._decisive, "scoring": base.as_dict()}, lambda _: self._score(base)
        ).result
        column = {name: torch.tensor(kept[name], dtype=torch.float64) for name in _COLUMNS[1:]}
        don, nod, norm = column["don"], column["nod"], float(kept["weight_norm"])
        if scoring != base:
            update = scoring.update
            inner, square = with_weight_decay(
                column["weight_dot_update"], column["update_norm"].square(), norm, update.weight_decay
            )
            don, nod = rescale_to_lr(inner, square.sqrt(), norm, update.lr)
        return ScoreColumns(torch.tensor(kept["row"], dtype=torch.int64), don, nod, column["loss"])

    def _score(self, scoring: Scoring) -> dict[str, Any]:
        if scoring.dtype not in self._lowered:
            self._lowered[scoring.dtype] = load_model(self._model, dtype=scoring.dtype)
        scorer = Scorer(self._lowered[scoring.dtype], update=scoring.update, masks=self._masks)
        records = [Record(i, "-", f"record {i}", record) for i, record in enumerate(self.corpus.records)]
        samples = scorer.masker.tokenize_many(records)
        if scoring.scope == EVERY:
            samples = [_every_token(sample) for sample in samples]
        table = to_table(scorer.sample_scorer.score(samples))
        return {**{name: table.column(name).to_pylist() for name in _COLUMNS}, "weight_norm": scorer.weight_norm}


@dataclass(frozen=True)
class Prepared:
    """Common start of both studies: the damaged corpus under one model.

    Attributes:
        measures: scores, selections and trainings.
        recorded: the settings that both reports show, plain values.
    """

    measures: Measures
    recorded: Mapping[str, Any]

    def untrained(self, seeds: int) -> Measured | None:
        """Held-out loss of the untrained model; None for a study without training (``seeds`` 0)."""
        losses = self.measures.train((), 0).losses if seeds else None
        return None if losses is None else Measured(losses.loss, losses.error)


def prepare(
    store: CellStore, model: str | Path | LoadedModel, data: StudyData, settings: DamageStudySettings
) -> Prepared:
    """Read the rows, plant the damage and load the model.

    Raises:
        InputError, CorpusError, ModelError: as their names say.
    """
    corpus = damaged_corpus(data, settings.shares, seed=settings.damage_seed)
    recorded = {
        "model": model.name if isinstance(model, LoadedModel) else str(model),
        "rows": len(corpus.records),
        "skip": data.skip,
        "heldout_rows": len(corpus.heldout),
        "heldout_skip": data.heldout_skip,
        "normalise": DEFAULT_NORMALISE,
        "damaged": {kind: corpus.kinds.count(kind) for kind in settings.shares},
        **settings.as_dict(),
    }
    return Prepared(Measures(store, model, corpus, settings.training, data.masks), recorded)


def separation(score: Tensor, kinds: Sequence[str]) -> dict[str, Estimate]:
    """By kind of damage (:data:`ANY` for all together), the AUC that an undamaged row has a higher score.

    Rows without a score are left out, and so are kinds that no row has.
    """
    by_kind: dict[str, list[float]] = {}
    for value, kind in zip(score.tolist(), kinds, strict=True):
        if not math.isnan(value):
            by_kind.setdefault(kind, []).append(value)
    clean = by_kind.pop("", [])
    if not clean or not by_kind:
        return {}
    every = [value for values in by_kind.values() for value in values]
    return {ANY: auc(clean, every), **{kind: auc(clean, by_kind[kind]) for kind in KINDS if kind in by_kind}}


def _every_token(sample: TokenizedSample) -> TokenizedSample:
    if sample.status is not Status.SCORED:
        return sample
    return replace(sample, scored=(False, *(True for _ in sample.input_ids[1:])))


__all__ = [
    "ANY",
    "DamagedCorpus",
    "Measured",
    "Measures",
    "Prepared",
    "Trained",
    "damaged_corpus",
    "prepare",
    "separation",
]
