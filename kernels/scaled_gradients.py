"""Gradients of the output layer scaled row by row and column by column, without forming them whole.

With G the gradient of a sample's loss and two vectors r and c,

    ‖diag(r) G diag(c)‖² = Σ_t Σ_s (ε_t ∘ r · ε_s ∘ r)(h_t ∘ c · h_s ∘ c),

and ⟨diag(r) G diag(c), M⟩ = ⟨G, diag(r) M diag(c)⟩ is a product of ``gradient_dots``. That is the metric of Adam if its
second moment is factored by row and column, as in Adafactor (Shazeer and Stern, arXiv 1804.04235). :func:`squared_sums`
gives the sums of G² that make such a state.

``softmax.py`` and ``products.py`` define ε, h and the magnitudes. Only one range of the vocabulary is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.arguments import HeadArguments, PlainOptions, check_plain_call, gather_batch
from donod_fast.kernels.precision import full_precision
from donod_fast.kernels.products import TokenSide, torch_products
from donod_fast.kernels.scores import precise_dtype

_BLOCK = 512  # tokens of a sample multiplied with each other at a time


def scaled_norms(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    row_scale: Tensor,  # (vocab,) floating
    column_scale: Tensor,  # (dim,) floating
    **options: Unpack[PlainOptions],
) -> Tensor:
    """‖diag(row_scale) G_i diag(column_scale)‖_F of each sample, (samples,) float64; NaN without a scored token.

    Costs two logits products, and for a sample of N tokens the cheaper of N · N · vocab and N · vocab · dim. Other
    arguments as in ``don_nod``.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
    """
    call = check_plain_call(hidden, weight, labels, cu_seqlens, **options)
    rows, columns = _checked_scales(call, row_scale, column_scale)
    dim = hidden.shape[1]
    with torch.no_grad(), full_precision(hidden.device):
        side = TokenSide.of(gather_batch(call))
        total = hidden.new_zeros(len(side.batch.lengths), dtype=precise_dtype(hidden.device))
        states = _states(side) * columns
        for v, signals in _ranges(side):
            signals *= rows[v]
            for sample, (start, stop) in enumerate(pairwise(side.batch.bounds)):
                mine = slice(start, stop)
                if stop - start < dim:
                    total[sample] += _gram(signals[mine], states[mine])
                else:
                    total[sample] += (signals[mine].t() @ states[mine]).square().sum(dtype=total.dtype)
        return total.clamp_min(0.0).sqrt() * side.scale.abs()


def scaled_products(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    other_hidden: Tensor,  # (other tokens, dim)
    other_labels: Tensor,  # (other tokens,)
    other_cu_seqlens: Tensor,  # (other samples + 1,) int32
    weight: Tensor,  # (vocab, dim)
    row_scale: Tensor,  # (vocab,) floating
    column_scale: Tensor,  # (dim,) floating
    **options: Unpack[PlainOptions],
) -> Tensor:
    """⟨diag(row_scale) G_i diag(column_scale), G_j⟩ between two sets of samples, (samples, other samples) float64.

    As ``gradient_products``, which has no scales; NaN if either sample has no scored token.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
    """
    left = check_plain_call(hidden, weight, labels, cu_seqlens, **options)
    right = check_plain_call(other_hidden, weight, other_labels, other_cu_seqlens, **options)
    scales = _checked_scales(left, row_scale, column_scale)
    return torch_products(gather_batch(left), gather_batch(right), scales)


def squared_sums(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    **options: Unpack[PlainOptions],
) -> tuple[Tensor, Tensor]:
    """Σ_i of the row sums and of the column sums of G_i², elementwise squares: (vocab,) and (dim,) float64.

    A sample without a scored token adds nothing. Costs three logits products. Other arguments as in ``don_nod``.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
    """
    call = check_plain_call(hidden, weight, labels, cu_seqlens, **options)
    precise = precise_dtype(hidden.device)
    rows = hidden.new_zeros(weight.shape[0], dtype=precise)
    columns = hidden.new_zeros(weight.shape[1], dtype=precise)
    with torch.no_grad(), full_precision(hidden.device):
        side = TokenSide.of(gather_batch(call))
        states, scales = _states(side), side.scale.square()
        for v, signals in _ranges(side):
            for sample, (start, stop) in enumerate(pairwise(side.batch.bounds)):
                if start == stop:
                    continue
                squares = (signals[start:stop].t() @ states[start:stop]).square_()
                rows[v] += squares.sum(1, dtype=precise) * scales[sample]
                columns += squares.sum(0, dtype=precise) * scales[sample]
    return rows, columns


def _checked_scales(call: HeadArguments, row_scale: Tensor, column_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Both scales in the compute dtype."""
    (vocab, dim), device = call.weight.shape, call.hidden.device
    for name, scale, size in (("row_scale", row_scale, vocab), ("column_scale", column_scale, dim)):
        if scale.shape != (size,) or not scale.is_floating_point() or scale.device != device:
            raise InputError(
                f"{name} must be a floating ({size},) tensor on {device}, "
                f"got {scale.dtype} {tuple(scale.shape)} on {scale.device}"
            )
    return row_scale.to(call.compute_dtype), column_scale.to(call.compute_dtype)


def _states(side: TokenSide) -> Tensor:
    """(scored, dim) hidden states times magnitudes."""
    blocks = [side.states(block) for block in side.blocks()]
    return torch.cat(blocks) if blocks else side.batch.hidden.new_zeros((0, side.batch.hidden.shape[1]))


def _ranges(side: TokenSide) -> Iterator[tuple[slice, Tensor]]:
    """Each range of the vocabulary with D of every token there: within the workspace, with a gradient's rows beside."""
    batch = side.batch
    vocab, dim = batch.weight.shape
    size = torch.finfo(batch.compute_dtype).bits // 8
    held = 3 * len(side.labels) + 3 * dim  # elements for each row of the vocabulary
    width = max(1, min(vocab, batch.workspace_bytes // (size * held)))
    if not len(side.labels):
        return
    for first in range(0, vocab, width):
        yield slice(first, min(first + width, vocab)), side.signals(first, width)


def _gram(signals: Tensor, states: Tensor) -> Tensor:
    """Σ_ts (D_t · D_s)(h_t · h_s) of one sample, block by block."""
    total = signals.new_zeros((), dtype=precise_dtype(signals.device))
    for start in range(0, len(signals), _BLOCK):
        stop = min(start + _BLOCK, len(signals))
        product = (signals[start:stop] @ signals[:stop].t()).mul_(states[start:stop] @ states[:stop].t())
        whole = product.sum(dtype=total.dtype)
        total += 2.0 * whole - product[:, start:].sum(dtype=total.dtype) if start else whole
    return total
