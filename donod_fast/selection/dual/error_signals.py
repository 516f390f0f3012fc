"""Error signals ε of the output layer with G = Σ_t ε_t h_tᵀ, for a block of vocabulary columns at a time.

The numbers equal those of scoring (``kernels/softmax.py``): exact at any confidence, normalisers first, and no array of
size tokens × vocabulary unless the caller asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.softmax import (
    RunningRows,
    TokenStatistics,
    constant_slope,
    delta_columns,
    label_preactivations,
)
from donod_fast.models.head import Head

_BLOCK = 512  # tokens whose normalisers are computed together


@dataclass(frozen=True, slots=True, eq=False)
class HeadSignals:
    """The scored tokens of some samples, with the terms of their error signals.

    Attributes:
        hidden: (tokens, d) final hidden states in the dtype of the sums.
        labels: (tokens,) int64.
        weight: (V, d) weight of the output layer.
        head: the output layer's map from pre-activations to logits.
        loss: (tokens,) float64 (float32 if the device has no float64) in nats, without the token's weight.
        log_rest: (tokens,) normalisers of the softmax without the label.
        factor: (tokens,) factor of D: the token's weight in the objective times 1 − p_y times the logits' scale.
        workspace_bytes: memory limit of a tile in bytes.
    """

    hidden: Tensor
    labels: Tensor
    weight: Tensor
    head: HeadMap
    loss: Tensor
    log_rest: Tensor
    factor: Tensor
    workspace_bytes: int

    @staticmethod
    @torch.no_grad()
    def of(hidden: Tensor, labels: Tensor, weights: Tensor, head: Head, workspace_bytes: int) -> HeadSignals:
        """Compute the normalisers.

        Args:
            hidden: (tokens, d) float64 or float32.
            labels: (tokens,) int64.
            weights: (tokens,) weight of each token's loss in the objective (1/N for a mean).
            head: the output layer.
            workspace_bytes: memory limit in bytes.
        """
        mapping = HeadMap(head.bias, head.logit_scale, head.softcap)
        width = max(1, workspace_bytes // (4 * _BLOCK * hidden.element_size()))
        parts = []
        for start in range(0, max(1, len(labels)), _BLOCK):
            h, y = hidden[start : start + _BLOCK], labels[start : start + _BLOCK]
            running = RunningRows(y, label_preactivations(h, head.weight, y), mapping, hidden.dtype)
            for first in range(0, head.weight.shape[0], width):
                running.add(h @ head.weight[first : first + width].to(hidden.dtype).t(), first)
            parts.append(running.finish())
        found = TokenStatistics.cat(parts)
        factor = torch.exp(found.log_miss) * weights.to(found.log_miss) * constant_slope(mapping)
        return HeadSignals(
            hidden, labels, head.weight, mapping, found.loss, found.log_rest, factor.to(hidden.dtype), workspace_bytes
        )

    def tiles(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield all vocabulary columns in blocks, each with ε (tokens, columns) of all tokens."""
        vocab, dim = self.weight.shape
        width = self.workspace_bytes // (4 * self.hidden.element_size() * max(1, len(self.labels), dim))
        width = max(1, min(vocab, width))
        for first in range(0, vocab, width):
            columns = slice(first, min(first + width, vocab))
            yield columns, self._columns(columns, slice(None))

    def whole(self, tokens: slice) -> Tensor:
        """ε of some tokens over the whole vocabulary: (tokens, V)."""
        return self._columns(slice(0, self.weight.shape[0]), tokens)

    @torch.no_grad()
    def _columns(self, columns: slice, tokens: slice) -> Tensor:
        a = self.hidden[tokens] @ self.weight[columns].to(self.hidden.dtype).t()
        found: Tensor = delta_columns(a, self.labels[tokens], columns.start, self.log_rest[tokens], self.head)
        return found.mul_(self.factor[tokens].unsqueeze(1))

    @torch.no_grad()
    def hidden_gradient(self) -> Tensor:
        """The objective's gradient at the hidden states, (tokens, d): Σ_v ε_v W_v."""
        total = torch.zeros_like(self.hidden)
        for columns, signals in self.tiles():
            total += signals @ self.weight[columns].to(signals.dtype)
        return total


__all__ = ["HeadSignals"]
