"""Iterate over the error signals D of a batch's tokens, block by block.

A block holds whole rows of D (one logits product). If the vocabulary is too large for that, the columns are computed
one range at a time (two logits products): see ``workspace.py``. The signal of a token is
ε = w · slope · u · D in the notation of ``softmax.py``, slope being ``constant_slope``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from donod_fast.kernels.arguments import HeadBatch
from donod_fast.kernels.softmax import (
    RunningRows,
    TokenStatistics,
    delta_columns,
    fill_preactivations,
    label_preactivations,
    normalise_rows,
)
from donod_fast.kernels.workspace import Workspace, plan_workspace, signal_buffer


@dataclass(frozen=True, slots=True, eq=False)
class SignalBlock:
    """Consecutive scored tokens. Valid until the next block is requested, which reuses the memory of D.

    Attributes:
        tokens: range of the batch's scored tokens.
        hidden: (n, dim) their hidden states in the compute dtype.
        statistics: their statistics.
    """

    tokens: slice
    hidden: Tensor
    statistics: TokenStatistics
    _batch: HeadBatch
    _stored: Tensor | None
    _width: int

    def columns(self) -> Iterator[tuple[slice, Tensor]]:
        """Iterate over vocabulary ranges v and D[:, v], (n, rows) in the compute dtype.

        A range is short enough to be summed in float32; sums over all ranges are not.
        """
        vocab = self._batch.weight.shape[0]
        labels = self._batch.labels[self.tokens]
        for first in range(0, vocab, self._width):
            v = slice(first, min(first + self._width, vocab))
            if self._stored is not None:
                yield v, self._stored[:, v]
                continue
            a = self.hidden @ self._batch.weight[v].to(self.hidden.dtype).t()
            yield v, delta_columns(a, labels, first, self.statistics.log_rest, self._batch.head)


def signal_blocks(batch: HeadBatch, *, squares: bool = False) -> Iterator[SignalBlock]:
    """Iterate over all scored tokens of a batch in order; ``squares`` requests the statistic of that name."""
    plan = plan_workspace(batch)
    size = plan.group_tokens or plan.stream_tokens
    for start in range(0, len(batch.labels), size):
        tokens = slice(start, min(start + size, len(batch.labels)))
        rows, labels = batch.rows[tokens], batch.labels[tokens]
        hidden = batch.hidden[rows].to(batch.compute_dtype)
        if plan.group_tokens:
            stored = signal_buffer(len(labels), batch.weight.shape[0], hidden)
            fill_preactivations(hidden, batch.weight, stored, plan.cast_rows)
            label_a = label_preactivations(hidden, batch.weight, labels)
            statistics = normalise_rows(stored, labels, label_a, batch.head, plan.row_block, squares=squares)
        else:
            stored, statistics = None, streamed_statistics(batch, rows, labels, plan, squares=squares)
        yield SignalBlock(tokens, hidden, statistics, batch, stored, plan.stream_vocab)


def streamed_statistics(
    batch: HeadBatch,
    rows: Tensor,  # (tokens,) which rows of hidden
    labels: Tensor,  # (tokens,)
    plan: Workspace,
    *,
    squares: bool = False,
) -> TokenStatistics:
    """Statistics of some tokens of a batch, computed for one range of the vocabulary at a time."""
    parts = []
    for start in range(0, len(labels), plan.stream_tokens):
        block = slice(start, start + plan.stream_tokens)
        hidden = batch.hidden[rows[block]].to(batch.compute_dtype)
        label_a = label_preactivations(hidden, batch.weight, labels[block])
        running = RunningRows(labels[block], label_a, batch.head, batch.compute_dtype, squares=squares)
        for v in range(0, batch.weight.shape[0], plan.stream_vocab):
            running.add(hidden @ batch.weight[v : v + plan.stream_vocab].to(batch.compute_dtype).t(), v)
        parts.append(running.finish())
    return TokenStatistics.cat(parts)
