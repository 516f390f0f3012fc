"""Held-out loss: a smoother measure of a training than the share of solved tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from donod_fast.data.masking import MaskSettings
from donod_fast.errors import InputError
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings


class HeldOut(NamedTuple):
    """Losses of a model on rows that it was not trained on.

    Attributes:
        loss: loss in nats per scored token, over all scored tokens.
        error: its standard error over rows (ratio estimator).
        rows: rows with a loss.
        tokens: scored tokens.
    """

    loss: float
    error: float
    rows: int
    tokens: int


def heldout_loss(
    model: Any,
    data: Sequence[Mapping[str, Any]] | str | Path | Sequence[str | Path],
    *,
    tokenizer: Any = None,
    masks: MaskSettings | None = None,
) -> HeldOut:
    """Mean loss of ``model`` on the scored tokens of ``data``, with the masks of scoring.

    Args:
        model: a loaded transformers model (with ``tokenizer``), a ``LoadedModel``, or a folder or hub id.
        data: records, or paths.
        tokenizer: tokenizer of a loaded transformers model.
        masks: settings of reading and masking rows.

    Raises:
        InputError: no row has a loss.
        CorpusError: the data cannot be read.
        ModelError: the model cannot be loaded or used for scoring.
    """
    options: dict[str, Any] = {"update": UpdateSettings("sgd"), "masks": masks}  # the cheapest head
    if isinstance(model, (str, Path)):
        scorer = Scorer.from_pretrained(model, **options)
    else:
        training = bool(getattr(model, "training", False))
        try:
            scorer = Scorer(model.eval() if training else model, tokenizer, **options)
            return _measured(scorer, data)
        finally:
            if training:
                model.train()
    return _measured(scorer, data)


def _measured(scorer: Scorer, data: Any) -> HeldOut:
    table = scorer.score_table(data)
    loss = torch.tensor(table.column("loss").to_numpy().copy(), dtype=torch.float64)
    tokens = torch.tensor(table.column("scored_tokens").to_numpy().copy(), dtype=torch.float64)
    there = loss.isfinite()
    loss, tokens = loss[there], tokens[there]
    if not len(loss):
        raise InputError("none of the held-out rows has a loss; the statuses of `donod-fast score` say why")
    mean = float((loss * tokens).sum() / tokens.sum())
    residual = tokens * (loss - mean)
    count = len(loss)
    error = math.sqrt(float((residual**2).sum()) * count / max(1, count - 1)) / float(tokens.sum())
    return HeldOut(mean, error, count, int(tokens.sum()))
