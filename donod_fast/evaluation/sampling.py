"""Draw tokens so that a sample depends only on its task, its number and the seed, not on the rest of its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, task_id: str, index: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The random numbers in [0, 1) of one sample, one per token: equal on every device and in every batch."""
    key = hashlib.sha256(f"{seed}\0{task_id}\0{index}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random(count)


def nucleus(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token per row, (rows,), from the smallest set of most probable tokens with total probability ``top_p``.

    By inversion: tokens are ordered by probability, and ``uniform`` × the set's mass selects one
    (nucleus sampling, Holtzman et al., arXiv 1904.09751, §3.1).

    Args:
        logits: (rows, vocabulary).
        uniform: (rows,) in [0, 1).
        temperature: > 0, divides the logits.
        top_p: in (0, 1].
    """
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulated = ordered.cumsum(dim=-1)
    kept = (cumulated - ordered) < top_p  # the first token is always kept
    mass = (ordered * kept).sum(dim=-1)
    target = uniform.to(mass) * mass
    chosen = (cumulated <= target[:, None]).sum(dim=-1)
    chosen = torch.minimum(chosen, kept.sum(dim=-1) - 1)  # rounding must not select a token outside the set
    return tokens.gather(-1, chosen[:, None])[:, 0]


class NucleusSampler:
    """A logits processor for ``generate``: keeps only the drawn token, so that greedy decoding takes it."""

    def __init__(self, draws: Sequence[Any], prompt_width: int, temperature: float, top_p: float) -> None:
        self._draws = torch.from_numpy(np.stack(draws))  # (rows, tokens)
        self._width, self._temperature, self._top_p = prompt_width, temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores, (rows, vocabulary), with −∞ for every token except the drawn one."""
        uniform = self._draws[:, input_ids.shape[1] - self._width].to(scores.device)
        tokens = nucleus(scores, uniform, self._temperature, self._top_p)
        return torch.full_like(scores, float("-inf")).scatter(1, tokens[:, None], 0.0)
