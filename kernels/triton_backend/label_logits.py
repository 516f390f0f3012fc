"""Exact logit of each scored token's label: the reference of its exponentials.

For a scored token with hidden state h and label y (``head_map.py``):

    a_y = W_y · h       products of the inputs, summed in float64
    z_y = f(a_y)        in units of log 2, like all logits inside the kernels
    φ_y = f′(a_y) / (4 logit_scale) under a soft-cap (1 otherwise)

``reference`` is z_y rounded to float32. ``logits.py`` computes e^{z_v − reference}, so that a token has one scale for
all tiles of the vocabulary. The rounding does not matter, because the float64 value stays beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.configs import ROWS, ceil_div
from donod_fast.kernels.triton_backend.language import LAUNCH_OPTIONS, LEFT_OUT, HeadNumbers, tensor_or
from donod_fast.kernels.triton_backend.layout import Group, Layout


@triton.jit(do_not_specialize=["first_sample", "samples"])
def label_logits_kernel(
    hidden,
    weight,
    bias,
    labels,
    token_row,
    token_slot,
    scored_start,
    label_values,
    label_slope,
    reference,
    first_sample,
    samples,
    hidden_stride,
    weight_stride,
    vocab,
    dim,
    slots,
    scale_log2,
    decay_rate,
    cap_log2,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Write the label's logit and its product with the slope, for a few tokens. Grid: (token blocks,)."""
    begin = tl.load(scored_start + first_sample)
    end = tl.load(scored_start + first_sample + samples)
    first = begin + tl.program_id(0) * BLOCK_TOKENS
    if first >= end:
        return
    tokens = first + tl.arange(0, BLOCK_TOKENS)
    valid = tokens < end
    row = tl.load(token_row + tokens, mask=valid, other=0).to(tl.int64)
    slot = tl.load(token_slot + tokens, mask=valid, other=0)
    given = tl.load(labels + row, mask=valid, other=0).to(tl.int64)
    # Labels on a device are not checked before the launch: one outside the vocabulary affects its own sample only.
    known = (given >= 0) & (given < vocab)
    label = tl.where(known, given, 0)

    total = tl.zeros((BLOCK_TOKENS, BLOCK_DIM), dtype=tl.float64)
    for start in range(0, dim, BLOCK_DIM):
        k = start + tl.arange(0, BLOCK_DIM)
        mask = valid[:, None] & (k < dim)[None, :]
        h = tl.load(hidden + row[:, None] * hidden_stride + k[None, :], mask=mask, other=0.0)
        w = tl.load(weight + label[:, None] * weight_stride + k[None, :], mask=mask, other=0.0)
        total += h.to(tl.float64) * w.to(tl.float64)
    a = tl.where(known, tl.sum(total, 1), float("nan"))
    x = a
    if HAS_BIAS:
        x += tl.load(bias + label, mask=valid, other=0.0).to(tl.float64)
    # The constants are those of the logits kernel, rounded to float32, so that both compute one function.
    one = tl.full((BLOCK_TOKENS,), 1.0, dtype=tl.float64)
    product = a
    if HAS_CAP:
        # tanh and its derivative from exp(−2|x|): the derivative loses no digits when the cap saturates.
        decay = tl.exp2(tl.abs(x) * (one * decay_rate))
        slope = decay / ((1.0 + decay) * (1.0 + decay))
        z = tl.where(x < 0.0, -one, one) * ((one * cap_log2) * ((1.0 - decay) / (1.0 + decay)))
        product = a * slope
        tl.store(label_slope + slot, slope.to(tl.float32), mask=valid)
    else:
        z = x * (one * scale_log2)
    tl.store(label_values + slot, z, mask=valid)
    tl.store(label_values + slots + slot, product, mask=valid)
    # A label masked by −∞ still needs a reference from which the others can be subtracted.
    finite = tl.where(z < LEFT_OUT, LEFT_OUT, z)
    tl.store(reference + slot, finite.to(tl.float32), mask=valid)


def launch_label_logits(
    hidden: Tensor,  # (rows, dim)
    weight: Tensor,  # (vocab, dim) the same dtype
    head: HeadMap,
    labels: Tensor,  # (rows,) int64 or int32
    layout: Layout,
    group: Group,
    label_values: Tensor,  # (2, all slots) float64, written: z_y in units of log 2, and φ_y a_y
    label_slope: Tensor | None,  # (all slots,) float32 φ_y, written under a soft-cap
    reference: Tensor,  # (all slots,) float32, written: z_y in units of log 2
) -> None:
    """Compute the label's logit of every token of the group; NaN for a label outside the vocabulary."""
    vocab, dim = weight.shape
    grid = (ceil_div(group.tokens_bound, ROWS.label_tokens),)
    if grid[0] == 0:
        return
    label_logits_kernel[grid](
        hidden,
        weight,
        tensor_or(head.bias, hidden),
        labels,
        layout.token_row,
        layout.token_slot,
        layout.scored_start,
        label_values,
        tensor_or(label_slope, reference),
        reference,
        group.first_sample,
        group.samples,
        hidden.stride(0),
        weight.stride(0),
        vocab,
        dim,
        reference.shape[0],
        *HeadNumbers.of(head),
        HAS_BIAS=head.bias is not None,
        HAS_CAP=head.softcap is not None,
        BLOCK_TOKENS=ROWS.label_tokens,
        BLOCK_DIM=ROWS.label_dim,
        num_warps=ROWS.warps,
        **LAUNCH_OPTIONS,
    )
