"""Entries of the output layer's gradient at a few rows of the vocabulary: G_i[v, :] = Σ_{t ∈ i} ε_tv h_tᵀ.

The whole (vocab, dim) gradient is never formed. The result shows how large the entries are, for example against AdamW's
eps.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.arguments import PlainOptions, check_plain_call, gather_batch
from donod_fast.kernels.precision import full_precision
from donod_fast.kernels.signals import signal_blocks
from donod_fast.kernels.softmax import constant_slope


def gradient_entries(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    vocabulary: Tensor,  # (rows,) int64, rows of the vocabulary
    **options: Unpack[PlainOptions],
) -> Tensor:
    """G of each sample at some rows of the vocabulary, (samples, rows, dim) in float32 (float64 where an input is).

    Costs a logits product. A sample without a scored token has NaN. Other arguments as in ``don_nod``.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
    """
    call = check_plain_call(hidden, weight, labels, cu_seqlens, **options)
    vocab = weight.shape[0]
    if vocabulary.ndim != 1 or vocabulary.dtype != torch.int64 or vocabulary.device != hidden.device:
        raise InputError(
            f"vocabulary must be (rows,) int64 on {hidden.device}, got {vocabulary.dtype} {tuple(vocabulary.shape)} "
            f"on {vocabulary.device}"
        )
    if len(vocabulary) and not 0 <= int(vocabulary.min()) <= int(vocabulary.max()) < vocab:
        raise InputError(f"vocabulary has rows outside the {vocab} of weight")
    with torch.no_grad(), full_precision(hidden.device):
        batch = gather_batch(call)
        lengths = batch.lengths
        shape = (len(lengths), len(vocabulary), weight.shape[1])
        out = hidden.new_zeros(shape, dtype=batch.compute_dtype)
        owner = torch.arange(len(lengths), device=hidden.device).repeat_interleave(
            torch.tensor(lengths, device=hidden.device)
        )
        shares = [batch.token_weight(max(1, length)) * constant_slope(batch.head) for length in lengths]
        for block in signal_blocks(batch):
            picked = block.hidden.new_zeros((len(block.hidden), len(vocabulary)))
            for v, signals in block.columns():
                inside = ((vocabulary >= v.start) & (vocabulary < v.stop)).nonzero().squeeze(1)
                picked[:, inside] = signals[:, vocabulary[inside] - v.start]
            picked *= block.statistics.log_miss.exp().to(picked.dtype).unsqueeze(1)
            of = owner[block.tokens]
            for sample in sorted(set(of.tolist())):
                mine = of == sample
                out[sample].addmm_(picked[mine].t(), block.hidden[mine], alpha=shares[sample])
        for sample, length in enumerate(lengths):
            if not length:
                out[sample] = torch.nan
    return out


__all__ = ["gradient_entries"]
