"""Row and column sums of the squared output-layer gradient, Σ_s G_vs² and Σ_v G_vs², without forming G.

With signals ε_t and hidden states h_t of one sample, G = Σ_t ε_t h_tᵀ, so that

    Σ_s G_vs² = Σ_tu ε_tv ε_uv (h_t · h_u)  = diag(εᵀ (H Hᵀ) ε)_v
    Σ_v G_vs² = Σ_tu h_ts h_us (ε_t · ε_u)  = diag(Hᵀ (ε εᵀ) H)_s

They are the factors of Adafactor's second moment (Shazeer and Stern 2018, arXiv 1804.04235, eq. 4) for one sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from donod_fast.kernels.arguments import HeadBatch, PlainOptions, check_plain_call, gather_batch
from donod_fast.kernels.precision import full_precision
from donod_fast.kernels.scores import precise_dtype
from donod_fast.kernels.signals import streamed_statistics
from donod_fast.kernels.softmax import (
    TokenStatistics,
    constant_slope,
    delta_columns,
    fill_preactivations,
    label_preactivations,
    normalise_rows,
)
from donod_fast.kernels.workspace import Workspace, plan_workspace, signal_buffer


class SecondMoments(NamedTuple):
    """Sums over samples of the sums of squares of their gradients, in float64 (float32 on a device without it)."""

    rows: Tensor  # (vocab,)
    columns: Tensor  # (dim,)
    samples: int  # samples with a scored token


def second_moments(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    **options: Unpack[PlainOptions],
) -> SecondMoments:
    """Compute Σ_i Σ_s G_ivs² and Σ_i Σ_v G_ivs² over the samples i. Arguments as in ``don_nod``.

    Costs SGD's path and a product of the size of its Gram matrices. A sample without a scored token adds nothing.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
    """
    call = check_plain_call(hidden, weight, labels, cu_seqlens, **options)
    with torch.no_grad(), full_precision(hidden.device):
        batch = gather_batch(call)
        plan, precise = plan_workspace(batch), precise_dtype(hidden.device)
        rows = hidden.new_zeros(weight.shape[0], dtype=precise)
        columns = hidden.new_zeros(weight.shape[1], dtype=precise)
        lengths = batch.lengths
        for sample, length in enumerate(lengths):
            if length:
                _add(batch, plan, slice(batch.bounds[sample], batch.bounds[sample + 1]), rows, columns)
        return SecondMoments(rows, columns, sum(length > 0 for length in lengths))


def _add(batch: HeadBatch, plan: Workspace, sample: slice, rows: Tensor, columns: Tensor) -> None:
    """Add one sample's sums. They are those of signals and states of size 1, times the largest magnitude squared."""
    places, labels = batch.rows[sample], batch.labels[sample]
    hidden = batch.hidden[places].to(batch.compute_dtype)
    statistics, chunks = _signals(batch, plan, places, labels, hidden)
    largest = statistics.log_miss.amax()
    square = (largest.exp() * batch.token_weight(len(labels)) * constant_slope(batch.head)).square()
    states = hidden * torch.exp(statistics.log_miss - largest).to(hidden.dtype).unsqueeze(1)
    gram = states @ states.t()
    signal_gram = torch.zeros_like(gram)
    for v, signals in chunks:
        sums = (signals * (gram @ signals)).sum(0, dtype=rows.dtype)
        rows[v] += sums.clamp_min(0.0) * square  # of squares: below 0 by rounding alone
        signal_gram.addmm_(signals, signals.t())
    columns += (states * (signal_gram @ states)).sum(0, dtype=columns.dtype).clamp_min(0.0) * square


def _signals(
    batch: HeadBatch, plan: Workspace, places: Tensor, labels: Tensor, hidden: Tensor
) -> tuple[TokenStatistics, Iterator[tuple[slice, Tensor]]]:
    """A sample's statistics, and its signals for one range of the vocabulary after the other."""
    vocab = batch.weight.shape[0]
    tokens = len(labels)
    if tokens <= plan.group_tokens:
        stored = signal_buffer(tokens, vocab, hidden)
        fill_preactivations(hidden, batch.weight, stored, plan.cast_rows)
        label_a = label_preactivations(hidden, batch.weight, labels)
        statistics = normalise_rows(stored, labels, label_a, batch.head, plan.row_block)
        ranges = _ranges(vocab, plan.stream_vocab)
        return statistics, ((v, stored[:, v]) for v in ranges)
    statistics = streamed_statistics(batch, places, labels, plan)
    width = max(1, plan.stream_vocab * plan.stream_tokens // tokens)

    def streamed() -> Iterator[tuple[slice, Tensor]]:
        for v in _ranges(vocab, width):
            a = hidden @ batch.weight[v].to(batch.compute_dtype).t()
            yield v, delta_columns(a, labels, v.start, statistics.log_rest, batch.head)

    return statistics, streamed()


def _ranges(vocab: int, width: int) -> Iterator[slice]:
    return (slice(first, min(first + width, vocab)) for first in range(0, vocab, width))


__all__ = ["SecondMoments", "second_moments"]
