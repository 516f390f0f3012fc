"""The direct implementation of DONOD's description: one sample at a time, a copy of W, a real optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

OPTIMIZERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=2e-5, weight_decay=0.0),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=2e-5),
}


def score_head(
    hidden: Tensor, weight: Tensor, labels: Tensor, update: str, softcap: float | None = None
) -> tuple[float, float]:
    """DON and NOD of one sample from its hidden states (tokens, dim): backward to a copied W, step, norms."""
    copy = weight.clone().requires_grad_(True)
    logits = F.linear(hidden, copy).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
    OPTIMIZERS[update]([copy]).step()
    with torch.no_grad():
        return float(weight.norm() - copy.norm()), float((weight - copy).norm())


def score_sample(
    decoder: Callable[..., Any], weight: Tensor, input_ids: Tensor, labels: Tensor, update: str
) -> tuple[float, float]:
    """The same from token ids (1, length) and labels (length,), −100 where not scored.

    As in a training step: logits for every token, and a loss that ignores unscored tokens.
    """
    with torch.no_grad():
        hidden = decoder(input_ids=input_ids, use_cache=False).last_hidden_state[0]
    return score_head(hidden[:-1], weight, labels[1:], update)
