"""Second stage of the head forward: sums of blocks → statistics of tokens → sums of samples. No atomics.

For a scored token with label y, its reference and x = z − reference (``logits.py``), in float64 and in a fixed order:

    R = Σ e^x,  lse_rest = reference + log R     over v ≠ y
    loss = softplus(lse_rest − z_y),  log u = −softplus(z_y − lse_rest),  u = 1 − p_y
    entropy = p_y loss + u (log R − Σ q x − log u)
    dot = Σ_v ε_v a_v / (w u)

and per sample the sums, the largest log u, and for each token

    share         r / R, with r its magnitude relative to the sample's largest
    label_signal  R φ_y

so that its error signal relative to the sample's scale is D_tv = share (E_tv − [v = y] label_signal), with E and φ of
``logits.py``. Tokens whose |log R| exceeds ``FAR`` are counted in ``flagged``; ``rescue.py`` computes them again.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.configs import ROWS, ceil_div
from donod_fast.kernels.triton_backend.language import LAUNCH_OPTIONS, softplus, tensor_or
from donod_fast.kernels.triton_backend.layout import Group, Layout

# Nats between the reference of a token and the normaliser of the other logits. Within ±30 the products of two tokens'
# exponentials, e^±60, keep 26 nats to the ends of float32's range, so that small ones are not lost either.
FAR = 30.0
_LOW = tl.constexpr(math.exp(-FAR))
_HIGH = tl.constexpr(math.exp(FAR))
_LOG_2 = tl.constexpr(math.log(2.0))


@triton.jit
def is_far(rest):  # float32
    """Whether R is too far from 1 for the reference (0 and ∞ are; NaN is not, no reference would change it)."""
    return (rest < _LOW) | (rest > _HIGH)


@triton.jit(do_not_specialize=["first_sample", "samples", "token_offset", "tokens_bound", "blocks"])
def token_statistics_kernel(
    token_slot,
    scored_start,
    sums,
    reference,
    label_values,
    statistics,
    rest,
    flagged,
    first_sample,
    samples,
    token_offset,
    tokens_bound,
    blocks,
    sum_stride,
    block_stride,
    slots,
    product_scale,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    AGAIN: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """Statistics of a block of tokens into (4, slots) float64: loss, entropy, log u, dot. Grid: (token blocks,).

    With ``AGAIN`` only tokens that were far before are written.
    """
    if AGAIN:
        if tl.load(flagged + tl.program_id(0)) == 0:
            return
    begin = tl.load(scored_start + first_sample) + token_offset
    end = min(tl.load(scored_start + first_sample + samples), begin + tokens_bound)
    tokens = begin + tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    valid = tokens < end
    slot = tl.load(token_slot + tokens, mask=valid, other=0)
    if AGAIN:
        valid &= is_far(tl.load(rest + slot, mask=valid, other=1.0))

    # No load depends on another, so that many are on their way together.
    total = tl.zeros((BLOCK_PARTS, BLOCK_TOKENS), dtype=tl.float64)
    total_shifted = tl.zeros((BLOCK_PARTS, BLOCK_TOKENS), dtype=tl.float64)
    total_products = tl.zeros((BLOCK_PARTS, BLOCK_TOKENS), dtype=tl.float64)
    part = tl.arange(0, BLOCK_PARTS)
    at = sums + part.to(tl.int64)[:, None] * block_stride + (tokens - begin)[None, :]
    for first in range(0, blocks, BLOCK_PARTS):
        mask = (part < blocks - first)[:, None] & valid[None, :]
        total += tl.load(at, mask=mask, other=0.0).to(tl.float64)
        total_shifted += tl.load(at + sum_stride, mask=mask, other=0.0).to(tl.float64)
        if HAS_BIAS or HAS_CAP:
            total_products += tl.load(at + 2 * sum_stride, mask=mask, other=0.0).to(tl.float64)
        at += BLOCK_PARTS * block_stride
    found = tl.sum(total, 0)
    tl.store(rest + slot, found.to(tl.float32), mask=valid)
    if not AGAIN:
        tl.store(flagged + tl.program_id(0), tl.sum((valid & is_far(found.to(tl.float32))).to(tl.int32), 0))

    # A vocabulary of one row has no other column: u is 0, and so is the gradient.
    alone = found == 0.0
    divisor = tl.where(alone, 1.0, found)
    label_z = tl.load(label_values + slot, mask=valid, other=0.0)
    above = tl.load(reference + slot, mask=valid, other=0.0).to(tl.float64) - label_z
    log_sum = tl.log(divisor)
    margin = tl.where(alone, -1e30, log_sum) + above * _LOG_2
    loss = softplus(margin)
    log_miss = -softplus(-margin)
    mean = tl.sum(total_shifted, 0) / divisor * _LOG_2  # of z − reference under q
    p_label = tl.exp(-loss)
    entropy = tl.where(p_label == 0.0, 0.0, p_label * loss) + tl.exp(log_miss) * (log_sum - mean - log_miss)
    if HAS_BIAS or HAS_CAP:
        of_label = tl.load(label_values + slots + slot, mask=valid, other=0.0)
        scale = tl.zeros((BLOCK_TOKENS,), dtype=tl.float64) + product_scale
        dots = scale * (tl.sum(total_products, 0) / divisor - of_label)
    else:
        dots = above * _LOG_2 + mean
    tl.store(statistics + slot, loss, mask=valid)
    tl.store(statistics + slots + slot, entropy, mask=valid)
    tl.store(statistics + 2 * slots + slot, log_miss, mask=valid)
    tl.store(statistics + 3 * slots + slot, dots, mask=valid)


@triton.jit(do_not_specialize=["first_sample"])
def sample_sums_kernel(
    statistics,
    rest,
    label_slope,
    slot_start,
    counts,
    token_weight,
    sums,
    scale,
    share,
    label_signal,
    first_sample,
    slots,
    magnitude,
    sign,
    HAS_CAP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums over a sample's tokens into (samples, 4), its scale, and its tokens' two factors. Grid: (samples,)."""
    sample = first_sample + tl.program_id(0)
    begin = tl.load(slot_start + sample)
    end = tl.load(slot_start + sample + 1)
    count = tl.load(counts + sample)
    loss = tl.zeros((BLOCK,), dtype=tl.float64)
    entropy = tl.zeros((BLOCK,), dtype=tl.float64)
    dots = tl.zeros((BLOCK,), dtype=tl.float64)
    top = tl.full((BLOCK,), float("-inf"), dtype=tl.float64)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < count
        at += begin
        log_miss = tl.load(statistics + 2 * slots + at, mask=mask, other=float("-inf"))
        loss += tl.load(statistics + at, mask=mask, other=0.0)
        entropy += tl.load(statistics + slots + at, mask=mask, other=0.0)
        dots += tl.exp(log_miss) * tl.load(statistics + 3 * slots + at, mask=mask, other=0.0)
        top = tl.maximum(top, log_miss)
    total_loss = tl.sum(loss, 0)
    # A maximum ignores NaN, so NaN is restored here. (An infinite loss means a label masked by −∞.)
    largest = tl.max(top, 0) + tl.where(total_loss == total_loss, 0.0, total_loss)
    w = tl.load(token_weight + sample)
    tl.store(sums + sample * 4, total_loss * w)
    tl.store(sums + sample * 4 + 1, tl.sum(entropy, 0) * w)
    tl.store(sums + sample * 4 + 2, tl.sum(dots, 0) * w)
    tl.store(scale + sample, tl.exp(largest) * w * magnitude)
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < begin + count
        log_miss = tl.load(statistics + 2 * slots + at, mask=mask, other=float("-inf"))
        found = tl.load(rest + at, mask=mask, other=0.0)
        # exp(−∞ − largest) is 0 for pads, and for tokens with u = 0 among others.
        relative = tl.where((log_miss == float("-inf")) | (found == 0.0), 0.0, tl.exp(log_miss - largest))
        divisor = tl.where(found == 0.0, 1.0, found).to(tl.float64)
        tl.store(share + at, (relative / divisor * sign).to(tl.float32), mask=at < end)
        if HAS_CAP:
            found *= tl.load(label_slope + at, mask=mask, other=0.0)
        tl.store(label_signal + at, found, mask=at < end)


def signal_scale(head: HeadMap) -> float:
    """Factor f′ / φ of all error signals, which E and ``label_signal`` omit; the samples' scale has it."""
    return head.logit_scale if head.softcap is None else 4.0 * head.logit_scale


def launch_token_statistics(
    head: HeadMap,
    layout: Layout,
    group: Group,
    sums: Tensor,  # (2 or 3, vocabulary blocks, tokens) float32 of launch_logits
    reference: Tensor,  # (all slots,) float32, in units of log 2
    label_values: Tensor,  # (2, all slots) float64 of launch_label_logits
    statistics: Tensor,  # (4, all slots) float64, written: loss, entropy, log u, dot
    rest: Tensor,  # (all slots,) float32, written: R
    flagged: Tensor,  # (token blocks,) int32, written unless again: tokens of each block that are far
    *,
    blocks: int,
    token_offset: int = 0,
    tokens_bound: int | None = None,
    again: bool = False,
) -> None:
    """Finish the softmax of each token of the group, or of ``tokens_bound`` of its tokens from ``token_offset`` on.

    ``blocks`` is how many blocks of ``sums`` are read. With ``again`` only tokens that were far before are written.
    """
    tokens_bound = group.tokens_bound if tokens_bound is None else tokens_bound
    grid = (ceil_div(tokens_bound, ROWS.tokens),)
    if grid[0] == 0:
        return
    token_statistics_kernel[grid](
        layout.token_slot,
        layout.scored_start,
        sums,
        reference,
        label_values,
        statistics,
        rest,
        flagged,
        group.first_sample,
        group.samples,
        token_offset,
        tokens_bound,
        blocks,
        sums.stride(0),
        sums.stride(1),
        statistics.shape[1],
        signal_scale(head),
        HAS_BIAS=head.bias is not None,
        HAS_CAP=head.softcap is not None,
        AGAIN=again,
        BLOCK_TOKENS=ROWS.tokens,
        BLOCK_PARTS=ROWS.blocks,
        num_warps=ROWS.warps,
        **LAUNCH_OPTIONS,
    )


def launch_sample_sums(
    statistics: Tensor,  # (4, all slots) float64
    rest: Tensor,  # (all slots,) float32 R
    label_slope: Tensor | None,  # (all slots,) float32 φ_y, or None if f′ is constant
    layout: Layout,
    group: Group,
    token_weight: Tensor,  # (all samples,) float64, w of the loss: 1/N or 1
    sums: Tensor,  # (all samples, 4) float64; columns 0 to 2 written: loss, entropy, ⟨W, G⟩
    scale: Tensor,  # (all samples,) float64, written: s, the largest w u of a token, times |signal_scale|
    share: Tensor,  # (all slots,) float32, written: each token's signed share of s over R, 0 for pads
    label_signal: Tensor,  # (all slots,) float32, written: R φ_y, 0 for pads
    head: HeadMap,
) -> None:
    """Sum tokens to samples."""
    sample_sums_kernel[(group.samples,)](
        statistics,
        rest,
        tensor_or(label_slope, rest),
        layout.slot_start,
        layout.counts,
        token_weight,
        sums,
        scale,
        share,
        label_signal,
        group.first_sample,
        statistics.shape[1],
        abs(signal_scale(head)),
        math.copysign(1.0, signal_scale(head)),
        HAS_CAP=label_slope is not None,
        BLOCK=ROWS.sample_block,
        num_warps=ROWS.warps,
        **LAUNCH_OPTIONS,
    )
