"""Fine-tune a model in memory on chosen records, with a budget of tokens: the measure of a selection in the studies.

Selections differ in the length of their rows, so an epoch is a different amount of training for each. Here every
selection can be trained on the same number of tokens: its rows are repeated in seeded orders until the budget is used
up. A step has the number of rows that comes closest to ``step_tokens``, so the number of steps is also nearly the same.
The trainer is that of :mod:`donod_fast.training`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record, Status, TokenizedSample
from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.settings import FineTuneSettings, LoraTuning


@dataclass(frozen=True, slots=True)
class FineTuned:
    """Result of a training.

    Attributes:
        model: a trained copy, in eval mode.
        rows: number of rows trained on, with repetitions.
        tokens: their tokens, including prompts, without padding.
        scored_tokens: number of these tokens with a loss.
        steps: optimizer steps.
        seconds: wall time.
        loss: mean loss per scored token over the second half of the steps, in nats.
    """

    model: Any
    rows: int
    tokens: int
    scored_tokens: int
    steps: int
    seconds: float
    loss: float

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for a cell's result."""
        return {name: getattr(self, name) for name in ("rows", "tokens", "scored_tokens", "steps", "seconds", "loss")}


def tokenized(
    loaded: LoadedModel, records: Sequence[Mapping[str, Any]], masks: MaskSettings | None = None
) -> list[TokenizedSample]:
    """Tokenise and mask records as scoring does; one sample per record, in their order."""
    masks = masks or MaskSettings()
    if masks.max_length is None:
        masks = replace(masks, max_length=loaded.max_length)
    vocab = loaded.model.get_output_embeddings().weight.shape[0]
    masker = Masker(loaded.tokenizer, masks, vocab_size=vocab)
    return masker.tokenize_many([Record(i, "-", f"record {i}", record) for i, record in enumerate(records)])


def fine_tune(
    loaded: LoadedModel,
    samples: Sequence[TokenizedSample],
    settings: FineTuneSettings,
    lora: LoraTuning | None = None,
) -> FineTuned:
    """Train a copy of the model on some samples; the model itself is not changed.

    Args:
        loaded: the model to start from.
        samples: see :func:`tokenized`; those without a scored token are left out.
        settings: budget and optimizer.
        lora: adapters to train in place of the parameters, merged into the copy afterwards; None for all parameters.

    Raises:
        InputError: no sample can be trained on, or the extra ``train`` is not installed.
    """
    try:
        from donod_fast.training.recipe import LoraSettings, TrainSettings
        from donod_fast.training.trainer import train_model
    except ImportError as error:
        raise InputError(
            f"training needs a package that is missing ({error}): pip install 'donod-fast[train]'"
        ) from error
    ready = [sample for sample in samples if sample.status is Status.SCORED]
    if not ready:
        raise InputError("none of the selected rows can be trained on; `donod-fast score` gives the reasons")
    course = planned_course(ready, settings)
    tokens = sum(len(sample.input_ids) for sample in course)
    batch = max(1, round(settings.step_tokens * len(course) / tokens))
    model: Any = copy.deepcopy(loaded.model)
    stats = train_model(
        model,
        loaded.tokenizer,
        course,
        TrainSettings(
            model=loaded.name,
            global_batch=batch,
            micro_batch=batch,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_ratio=settings.warmup_ratio,
            max_grad_norm=settings.max_grad_norm,
            schedule="cosine",
            epochs=1.0,
            seed=settings.seed,
            method="full" if lora is None else "lora",
            lora=LoraSettings() if lora is None else LoraSettings(**lora.as_dict()),
        ),
    )
    losses = [loss for _, loss in stats.losses][stats.steps // 2 :]
    return FineTuned(
        model=model.eval(),
        rows=stats.rows,
        tokens=stats.tokens,
        scored_tokens=stats.scored_tokens,
        steps=stats.steps,
        seconds=stats.seconds,
        loss=sum(losses) / max(1, len(losses)),
    )


def planned_course(samples: Sequence[TokenizedSample], settings: FineTuneSettings) -> list[TokenizedSample]:
    """The samples in the order of training, with repetitions: seeded orders until the budget is used up.

    The sequence ends where the total comes closest to the budget.
    """
    rng = Random(settings.seed)
    own = sum(len(sample.input_ids) for sample in samples)
    left = round(settings.epochs * own) if settings.tokens is None else settings.tokens
    course: list[TokenizedSample] = []
    while True:
        for sample in rng.sample(list(samples), len(samples)):
            length = len(sample.input_ids)
            if course and length > 2 * left:
                return course
            course.append(sample)
            left -= length
            if left <= 0:
                return course


@dataclass(frozen=True, slots=True)
class RowLosses:
    """A model's losses on held-out rows, row by row, to compare two models on the same rows.

    Attributes:
        sums: loss of each row, summed over its scored tokens, in nats.
        tokens: scored tokens of each row.
    """

    sums: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def loss(self) -> float:
        """Loss in nats per scored token, over all rows."""
        return sum(self.sums) / sum(self.tokens)

    @property
    def error(self) -> float:
        """Standard error of ``loss`` over rows (ratio estimator)."""
        return _ratio_error(self.sums, self.tokens)

    def less(self, other: RowLosses) -> tuple[float, float]:
        """``loss`` minus that of the other model on the same rows, and the standard error of the difference.

        Raises:
            InputError: the rows differ.
        """
        if self.tokens != other.tokens:
            raise InputError("losses can only be compared on the same held-out rows")
        differences = [own - theirs for own, theirs in zip(self.sums, other.sums, strict=True)]
        return sum(differences) / sum(self.tokens), _ratio_error(differences, self.tokens)

    @staticmethod
    def mean(several: Sequence[RowLosses]) -> RowLosses:
        """The mean over models (seeds), row by row.

        Raises:
            InputError: no losses are given, or their rows differ.
        """
        if not several or any(one.tokens != several[0].tokens for one in several):
            raise InputError("a mean of losses needs at least one model, and the same held-out rows for all")
        sums = tuple(math.fsum(column) / len(several) for column in zip(*(one.sums for one in several), strict=True))
        return RowLosses(sums, several[0].tokens)


def row_losses(
    model: Any,
    tokenizer: Any,
    records: Sequence[Mapping[str, Any]],
    masks: MaskSettings | None = None,
    *,
    token_budget: int | None = None,
) -> RowLosses:
    """Losses on held-out rows as in :func:`donod_fast.studies.core.heldout.heldout_loss`, but row by row.

    Args:
        model: a loaded transformers model.
        tokenizer: its tokenizer.
        records: the held-out rows.
        masks: settings of reading and masking rows.
        token_budget: slots of a batch; None to find it from free memory.

    Raises:
        InputError: no row has a loss.
        ModelError: the model cannot be used for scoring.
    """
    scorer = Scorer(model, tokenizer, update=UpdateSettings("sgd"), masks=masks, token_budget=token_budget)
    table = scorer.score_table(list(records))
    losses, tokens = table.column("loss").to_pylist(), table.column("scored_tokens").to_pylist()
    there = [(loss * count, int(count)) for loss, count in zip(losses, tokens, strict=True) if math.isfinite(loss)]
    if not there:
        raise InputError("none of the held-out rows has a loss; the statuses of `donod-fast score` say why")
    return RowLosses(tuple(total for total, _ in there), tuple(count for _, count in there))


def _ratio_error(sums: Sequence[float], tokens: Sequence[int]) -> float:
    mean = math.fsum(sums) / sum(tokens)
    squares = math.fsum((total - count * mean) ** 2 for total, count in zip(sums, tokens, strict=True))
    return math.sqrt(squares * len(sums) / max(1, len(sums) - 1)) / sum(tokens)


__all__ = ["FineTuned", "RowLosses", "fine_tune", "planned_course", "row_losses", "tokenized"]
