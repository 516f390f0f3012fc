"""Where an evidence study works: models, rows and tokens, each loaded once in a process; a training is a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.finetune import FineTuned, RowLosses, fine_tune, row_losses, tokenized
from donod_fast.studies.core.scored import digest, model_key
from donod_fast.studies.evidence.compute import Passed
from donod_fast.studies.evidence.plan import EvidencePlan, HeldOut, Measure, Pool, Tuning


class Task(NamedTuple):
    """One training, or the measures of an untrained model (``rows`` empty).

    Attributes:
        pair, pool, tuning: their places in the plan.
        rows: positions in the pool to train on, in ascending order.
        seed: training seed.
        tokens: tokens to train on in place of the tuning's budget; None for that budget.
    """

    pair: int
    pool: int
    tuning: int
    rows: tuple[int, ...]
    seed: int
    tokens: int | None = None


@dataclass(frozen=True)
class Measured:
    """Result of a task.

    Attributes:
        tokens, scored_tokens: trained on, with repetitions; 0 without training.
        seconds: wall time of the training, without the measures.
        losses: by the name of the held-out set.
        benchmarks: further measures by name.
    """

    tokens: int
    scored_tokens: int
    seconds: float
    losses: Mapping[str, RowLosses]
    benchmarks: Mapping[str, float]

    @staticmethod
    def of(cell: Cell) -> Measured:
        """Read a cell that :meth:`Workshop.measured` made."""
        kept = cell.result
        losses = {name: RowLosses(tuple(one["sums"]), tuple(one["tokens"])) for name, one in kept["losses"].items()}
        return Measured(kept["tokens"], kept["scored_tokens"], kept["seconds"], losses, kept["benchmarks"])


@dataclass(frozen=True)
class Workshop:
    """Loads what a plan names, and trains and measures. Nothing is loaded before it is needed.

    Attributes:
        plan: the plan.
        cells: folder of the study that keeps the cells.
    """

    plan: EvidencePlan
    cells: Path
    _models: dict[Any, LoadedModel] = field(default_factory=dict, repr=False, compare=False)
    _rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False, compare=False)
    _samples: dict[tuple[int, str], list[TokenizedSample]] = field(default_factory=dict, repr=False, compare=False)
    _budgets: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def scoring_model(self, pair: int) -> LoadedModel:
        """The model that scores.

        Raises:
            ModelError: it cannot be loaded.
        """
        return self._model(self.plan.pairs[pair].score_model, "auto")

    def trained_model(self, pair: int) -> LoadedModel:
        """The model that is trained, in float32: AdamW's steps are lost in 16 bits.

        Raises:
            ModelError: it cannot be loaded.
        """
        return self._model(self.plan.pairs[pair].trained, "float32")

    def rows(self, of: Pool | HeldOut) -> list[dict[str, Any]]:
        """The rows of a pool or held-out set.

        Raises:
            CorpusError: the data cannot be read.
        """
        key = f"{type(of).__name__} {of.name}"
        if key not in self._rows:
            self._rows[key] = of.read()
        return self._rows[key]

    def samples(self, pair: int, pool: Pool) -> list[TokenizedSample]:
        """The rows of a pool as tokens of the model that is trained."""
        key = (pair, pool.name)
        if key not in self._samples:
            self._samples[key] = tokenized(self.trained_model(pair), self.rows(pool), pool.masks)
        return self._samples[key]

    def measured(self, task: Task) -> Cell:
        """Train and measure, or take the finished cell; see :meth:`Measured.of`.

        Raises:
            InputError: nothing can be trained on or measured, or the training diverged.
            ModelError: the model cannot be loaded or measured.
            StoreError: the cell cannot be read or written.
        """
        loaded = self.trained_model(task.pair)
        decisive = {
            **model_key(loaded, self.plan.pools[task.pool].masks),
            "dtype": str(loaded.dtype),
            "heldout": {
                one.name: {"records": digest(self.rows(one)), "masks": one.masks.as_key()} for one in self.plan.heldouts
            },
            "benchmarks": sorted(self.plan.benchmarks),
        }
        if not task.rows:
            return self._store.result("evidence-base", decisive, lambda _: self._untrained(task.pair))
        pool, tuning = self.plan.pools[task.pool], self.plan.tunings[task.tuning]
        records = self.rows(pool)
        training = tuning.seeded(task.seed)
        if task.tokens is not None:
            training = replace(training, tokens=task.tokens)
        settings = {
            **decisive,
            "records": digest([records[row] for row in task.rows]),
            "training": training.as_dict(),
            "lora": None if tuning.adapters is None else tuning.adapters.as_dict(),
        }

        def work(_: Path) -> Mapping[str, Any]:
            samples = self.samples(task.pair, pool)
            tuned = fine_tune(loaded, [samples[row] for row in task.rows], training, tuning.adapters)
            refuse_divergence(tuned, tuning)
            return {**tuned.as_dict(), **self._measures(task.pair, tuned.model)}

        return self._store.result("evidence", settings, work)

    @cached_property
    def _store(self) -> CellStore:
        return CellStore(self.cells)

    def _untrained(self, pair: int) -> dict[str, Any]:
        nothing = {"rows": 0, "tokens": 0, "scored_tokens": 0, "steps": 0, "seconds": 0.0}
        return {**nothing, **self._measures(pair, self.trained_model(pair).model)}

    def _measures(self, pair: int, model: Any) -> dict[str, Any]:
        tokenizer, losses = self.trained_model(pair).tokenizer, {}
        for one in self.plan.heldouts:
            found = row_losses(model, tokenizer, self.rows(one), one.masks, token_budget=self._budget(pair))
            losses[one.name] = {"sums": found.sums, "tokens": found.tokens}
        return {"losses": losses, "benchmarks": benchmarked(self.plan.benchmarks, model, tokenizer)}

    def _budget(self, pair: int) -> int:
        """Slots of a batch, found once, so that all models are measured in the same batches."""
        if pair not in self._budgets:
            scorer = Scorer(self.trained_model(pair), update=UpdateSettings("sgd"))
            self._budgets[pair] = scorer.sample_scorer.token_budget
        return self._budgets[pair]

    def _model(self, model: Any, dtype: str) -> LoadedModel:
        if isinstance(model, LoadedModel):
            return model
        loaded = self._models.get((str(model), dtype))
        if loaded is None:
            others = [one for (name, _), one in self._models.items() if name == str(model)]
            same = [one for one in others if str(one.dtype) == f"torch.{dtype}"]
            loaded = self._models[str(model), dtype] = same[0] if same else load_model(model, dtype=dtype)
        return loaded


def benchmarked(benchmarks: Mapping[str, Measure], model: Any, tokenizer: Any) -> dict[str, float]:
    """All further measures of a model; a measure of several numbers is named ``measure/number``."""
    found: dict[str, float] = {}
    for name, measure in benchmarks.items():
        value = measure(model, tokenizer)
        if isinstance(value, Mapping):
            found |= {f"{name}/{part}": float(number) for part, number in value.items()}
        else:
            found[name] = float(value)
    return found


def refuse_divergence(tuned: FineTuned, tuning: Tuning) -> None:
    """Refuse a training whose loss is not finite.

    Raises:
        InputError: names the learning rate.
    """
    if not math.isfinite(tuned.loss):
        raise InputError(
            f"the training ({tuning.label}) diverged: its loss is {tuned.loss}; lower the learning rate, which is "
            f"{tuning.training.learning_rate:g}"
        )


def passed(samples: Sequence[TokenizedSample]) -> Passed:
    """Tokens of rows that can be scored."""
    ready = [sample for sample in samples if sample.status is Status.SCORED]
    return Passed(sum(len(sample.input_ids) for sample in ready), sum(sample.scored_tokens for sample in ready))


__all__ = ["Measured", "Task", "Workshop", "benchmarked", "passed", "refuse_divergence"]
