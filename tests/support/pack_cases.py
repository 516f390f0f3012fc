"""Samples to pack, and their loss one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tiny_models import VOCAB
from torch import Tensor

LENGTHS = (9, 3, 20, 1, 14, 6, 2, 11)


def drawn(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[dict[str, Any]]:
    """Samples with a prompt of a third and an answer; the label of the first token is there, to be left out."""
    draw = np.random.default_rng(seed)
    found = []
    for length in lengths:
        ids = draw.integers(6, VOCAB, length)
        labels = np.where(np.arange(length) < length // 3, -100, ids)
        labels[0] = ids[0]
        found.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    return found


def summed_loss(model: Any, batch: dict[str, Any]) -> Tensor:
    """Sum of token losses, in the model's own dtype: the truth's arithmetic, not a trainer's."""
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    shifted = logits[:, :-1].reshape(-1, logits.shape[-1])
    return torch.nn.functional.cross_entropy(shifted, batch["labels"][:, 1:].reshape(-1), reduction="sum")


def alone(model: Any, samples: Sequence[dict[str, Any]]) -> Tensor:
    """The same, sample by sample; without positions, masks and padding."""
    parts = [{name: torch.tensor([values]) for name, values in sample.items()} for sample in samples]
    return torch.stack(
        [summed_loss(model, {**part, "use_cache": False}) for part in parts if part["labels"].shape[1] > 1]
    ).sum()
