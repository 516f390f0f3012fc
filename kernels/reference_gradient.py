"""⟨G_i, M⟩ of every sample with a matrix M of the output layer's shape, and sums of gradients that make up M.

The output layer's gradient of a sample is G = Σ_t ε_t h_tᵀ, so that with a reference gradient Ḡ = Σ_r c_r G_r

    ⟨G_i, Ḡ⟩ = Σ_{t ∈ i} (ε_tᵀ Ḡ) · h_t

is one more product of the size of the logits, for any number of references in the sum. c_r = 1/R gives the mean inner
product with R references, and c_r = 1/(R ‖G_r‖) the mean cosine times ‖G_i‖. ``gradient_products`` gives the products
with each single reference, without a (vocab, dim) matrix.

G is the plain gradient of the loss (an SGD step), independent of the update that scores samples.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.arguments import (
    HeadArguments,
    HeadBatch,
    PlainOptions,
    check_bounds,
    check_plain_call,
    gather_batch,
)
from donod_fast.kernels.precision import full_precision
from donod_fast.kernels.scores import precise_dtype
from donod_fast.kernels.signals import signal_blocks
from donod_fast.kernels.softmax import constant_slope
from donod_fast.kernels.token_statistics import per_token, sample_sums

# Matrices updated in one pass over D: the workspace holds this many scaled copies of a block's hidden states.
_TOGETHER = 2


def gradient_dots(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    matrices: Tensor,  # (n, vocab, dim) float32; float64 where hidden or weight is
    **options: Unpack[PlainOptions],
) -> Tensor:
    """⟨G_i, M_j⟩ of each sample's output-layer gradient with each of n matrices, (samples, n) float64.

    Costs a logits product and one more of its size for each matrix. Runs on any torch device and reads nothing back
    from it. Other arguments as in ``don_nod``.

    Returns:
        NaN for a sample without a scored token. The error is that of float32 products: some 1e-6 of ‖G_i‖ ‖M_j‖.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
    """
    call = check_plain_call(hidden, weight, labels, cu_seqlens, **options)
    _check_matrices("matrices", matrices, call)
    if call.cu_seqlens.device.type == "cpu":
        check_bounds(call.cu_seqlens, call.hidden.shape[0])
    found = per_token(call, len(matrices), lambda batch: _dots(batch, matrices))
    return sample_sums(call, found, mean=call.mean).t()


def accumulate_gradients(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    scales: Tensor,  # (samples, n) float64 or float32
    into: Tensor,  # (n, vocab, dim) float32; float64 where hidden or weight is
    **options: Unpack[PlainOptions],
) -> None:
    """Add Σ_i scales[i, j] · G_i to ``into[j]``, in place, without forming any single gradient.

    Costs a logits product and one more of its size for each j. A sample without a scored token adds nothing, at any
    scale. The scale multiplies the tokens' magnitudes before anything is rounded to float32, so a gradient below
    float32's range counts in full if its scale is large enough. Other arguments as in ``don_nod``.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
    """
    call = check_plain_call(hidden, weight, labels, cu_seqlens, **options)
    _check_matrices("into", into, call)
    wanted = (call.cu_seqlens.shape[0] - 1, len(into))
    if scales.shape != wanted or not scales.is_floating_point() or scales.device != hidden.device:
        raise InputError(
            f"scales must be a floating {wanted} tensor on {hidden.device}, "
            f"got {scales.dtype} {tuple(scales.shape)} on {scales.device}"
        )
    with torch.no_grad(), full_precision(hidden.device):
        batch = gather_batch(call)
        precise = precise_dtype(hidden.device)
        lengths = torch.tensor(batch.lengths, device=hidden.device)
        factors = [batch.token_weight(max(1, n)) * constant_slope(batch.head) for n in batch.lengths]
        shares = scales.to(precise) * torch.tensor(factors, dtype=precise, device=hidden.device).unsqueeze(1)
        of_token = shares.repeat_interleave(lengths, 0)
        for block in signal_blocks(batch):
            share = of_token[block.tokens] * block.statistics.log_miss.exp().unsqueeze(1)
            for first in range(0, len(into), _TOGETHER):
                columns = share[:, first : first + _TOGETHER].to(batch.compute_dtype).t().unsqueeze(2)
                states = [block.hidden * column for column in columns]
                for v, signals in block.columns():
                    for total, scaled in zip(into[first : first + _TOGETHER], states, strict=True):
                        total[v].addmm_(signals.t(), scaled)


def _check_matrices(name: str, matrices: Tensor, call: HeadArguments) -> None:
    shape = tuple(call.weight.shape)
    if matrices.ndim != 3 or matrices.shape[1:] != shape or not len(matrices):
        raise InputError(f"{name} must be (n, {shape[0]}, {shape[1]}) to fit weight, got {tuple(matrices.shape)}")
    if matrices.dtype != call.compute_dtype or matrices.device != call.weight.device:
        raise InputError(
            f"{name} must be {call.compute_dtype} on {call.weight.device}, got {matrices.dtype} on {matrices.device}"
        )


def _dots(batch: HeadBatch, matrices: Tensor) -> Tensor:
    """(n, scored) ε_tᵀ M h_t without the token's weight w."""
    parts = []
    slope = constant_slope(batch.head)
    for block in signal_blocks(batch):
        magnitude = block.statistics.log_miss.exp() * slope
        sums = magnitude.new_zeros((len(matrices), len(magnitude)))
        for v, signals in block.columns():
            for total, matrix in zip(sums, matrices, strict=True):
                total += torch.linalg.vecdot(signals @ matrix[v], block.hidden)
        parts.append(sums * magnitude)
    return torch.cat(parts, 1)
