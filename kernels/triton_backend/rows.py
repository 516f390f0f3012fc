"""Second stage of the head forward: sums of tiles → statistics of tokens → sums of samples. No atomics.

For a scored token with label y (notation of ``logits.py`` and ``softmax.py``), all in float64 and in a fixed order:

    a_y = W_y · h                                      (products of the inputs, summed in float64)
    lse_rest = top + log Σ_J sum_J e^{top_J − top}     over v ≠ y
    loss = softplus(lse_rest − z_y),  log u = −softplus(z_y − lse_rest),  u = 1 − p_y
    entropy = p_y loss + u (lse_rest − Σ q z − log u)
    dot = Σ_v ε_v a_v / (w u)

and per sample the sums, the largest log u, and the magnitude of each token relative to it. Tops of tiles are replaced
by the factors e^{top_J − lse_rest} that make E of ``logits.py`` the softmax q.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.configs import ROWS, ceil_div
from donod_fast.kernels.triton_backend.language import softplus, tensor_or
from donod_fast.kernels.triton_backend.layout import Group, Layout


@triton.jit(do_not_specialize=["first_sample", "samples", "token_offset", "tokens_bound", "vocab_tiles"])
def token_statistics_kernel(
    hidden,
    weight,
    bias,
    labels,
    token_row,
    token_slot,
    scored_start,
    slot_start,
    tile_top,
    tile_sum,
    tile_dot,
    tile_a,
    statistics,
    log_rest,
    label_slope,
    first_sample,
    samples,
    token_offset,
    tokens_bound,
    vocab_tiles,
    hidden_stride,
    weight_stride,
    vocab,
    dim,
    tile_stride,
    slots,
    logit_scale,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_CAP: tl.constexpr,
    BY_SLOT: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Statistics of a block of tokens into (4, slots) float64: loss, entropy, log u, dot."""
    begin = tl.load(scored_start + first_sample) + token_offset
    end = min(tl.load(scored_start + first_sample + samples), begin + tokens_bound)
    tokens = begin + tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    if begin + tl.program_id(0) * BLOCK_TOKENS >= end:
        return
    valid = tokens < end
    rows = tl.load(token_row + tokens, mask=valid, other=0).to(tl.int64)
    slot = tl.load(token_slot + tokens, mask=valid, other=0)
    given = tl.load(labels + rows, mask=valid, other=0).to(tl.int64)
    # Labels on a device are not checked before the launch: one outside the vocabulary affects its own sample only.
    known = (given >= 0) & (given < vocab)
    label = tl.where(known, given, 0)

    label_a = tl.zeros((BLOCK_TOKENS,), dtype=tl.float64)
    for start in range(0, dim, BLOCK_DIM):
        k = start + tl.arange(0, BLOCK_DIM)
        mask = valid[:, None] & (k < dim)[None, :]
        h = tl.load(hidden + rows[:, None] * hidden_stride + k[None, :], mask=mask, other=0.0)
        w = tl.load(weight + label[:, None] * weight_stride + k[None, :], mask=mask, other=0.0)
        label_a += tl.sum(h.to(tl.float64) * w.to(tl.float64), 1)
    label_a = tl.where(known, label_a, float("nan"))
    scale = tl.zeros((BLOCK_TOKENS,), dtype=tl.float64) + logit_scale
    label_z = label_a
    if HAS_BIAS:
        label_z += tl.load(bias + label, mask=valid, other=0.0).to(tl.float64)
    if HAS_SCALE:
        label_z *= scale
    slope = scale
    if HAS_CAP:
        cap = tl.zeros((BLOCK_TOKENS,), dtype=tl.float64) + softcap
        decay = tl.exp(tl.abs(label_z) * (-2.0 / cap))
        slope = decay / ((1.0 + decay) * (1.0 + decay)) * (4.0 * scale)
        label_z = tl.where(label_z < 0.0, -cap, cap) * ((1.0 - decay) / (1.0 + decay))

    if BY_SLOT:
        column = (slot - tl.load(slot_start + first_sample)).to(tl.int64)
    else:
        column = (tokens - begin).to(tl.int64)
    top = tl.full((BLOCK_TOKENS,), float("-inf"), dtype=tl.float32)
    for first in range(0, vocab_tiles, BLOCK_TILES):
        tile = first + tl.arange(0, BLOCK_TILES)
        at = tile.to(tl.int64)[:, None] * tile_stride + column[None, :]
        mask = (tile < vocab_tiles)[:, None] & valid[None, :]
        top = tl.maximum(top, tl.max(tl.load(tile_top + at, mask=mask, other=float("-inf")), 0))
    rest = tl.zeros((BLOCK_TOKENS,), dtype=tl.float64)
    shifted = tl.zeros((BLOCK_TOKENS,), dtype=tl.float64)
    sum_a = tl.zeros((BLOCK_TOKENS,), dtype=tl.float64)
    wide_top = top.to(tl.float64)
    for first in range(0, vocab_tiles, BLOCK_TILES):
        tile = first + tl.arange(0, BLOCK_TILES)
        at = tile.to(tl.int64)[:, None] * tile_stride + column[None, :]
        mask = (tile < vocab_tiles)[:, None] & valid[None, :]
        below = tl.load(tile_top + at, mask=mask, other=-1e30).to(tl.float64) - wide_top[None, :]
        share = tl.exp(below)
        part = tl.load(tile_sum + at, mask=mask, other=0.0).to(tl.float64)
        rest += tl.sum(share * part, 0)
        # (below is −1e30 if a tile has the label only; its contribution is 0)
        shifted += tl.sum(share * (tl.load(tile_dot + at, mask=mask, other=0.0).to(tl.float64) + part * below), 0)
        if HAS_BIAS or HAS_CAP:
            sum_a += tl.sum(share * tl.load(tile_a + at, mask=mask, other=0.0).to(tl.float64), 0)
    # A vocabulary of one row has no other column: u is 0, and so is the gradient.
    alone = rest == 0.0
    rest = tl.where(alone, 1.0, rest)
    log_sum = tl.log(rest)
    lse = wide_top + log_sum
    margin = lse - label_z
    loss = softplus(margin)
    log_miss = -softplus(-margin)
    mean = shifted / rest  # of z − top under q
    p_label = tl.exp(-loss)
    entropy = tl.where(p_label == 0.0, 0.0, p_label * loss) + tl.exp(log_miss) * (log_sum - mean - log_miss)
    if HAS_CAP:
        dots = sum_a / rest - slope * label_a
    elif HAS_BIAS:
        dots = scale * (sum_a / rest - label_a)
    else:
        dots = (wide_top - label_z) + mean
    tl.store(statistics + slot, loss, mask=valid)
    tl.store(statistics + slots + slot, entropy, mask=valid)
    tl.store(statistics + 2 * slots + slot, log_miss, mask=valid)
    tl.store(statistics + 3 * slots + slot, dots, mask=valid)
    tl.store(log_rest + slot, lse.to(tl.float32), mask=valid)
    if HAS_CAP:
        tl.store(label_slope + slot, slope.to(tl.float32), mask=valid)
    if BY_SLOT:
        for first in range(0, vocab_tiles, BLOCK_TILES):
            tile = first + tl.arange(0, BLOCK_TILES)
            at = tile.to(tl.int64)[:, None] * tile_stride + column[None, :]
            mask = (tile < vocab_tiles)[:, None] & valid[None, :]
            below = tl.load(tile_top + at, mask=mask, other=-1e30).to(tl.float64) - lse[None, :]
            tl.store(tile_top + at, tl.exp(below).to(tl.float32), mask=mask)


@triton.jit(do_not_specialize=["first_sample"])
def sample_sums_kernel(
    statistics,
    slot_start,
    counts,
    token_weight,
    sums,
    scale,
    relative,
    first_sample,
    slots,
    magnitude,
    sign,
    BLOCK: tl.constexpr,
):
    """Sums over a sample's tokens into (samples, 4), its scale, its tokens' relative magnitudes. Grid: (samples,)."""
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
        log_miss = tl.load(statistics + 2 * slots + at, mask=at < begin + count, other=float("-inf"))
        # exp(−∞ − largest) is 0 for pads, and for tokens with u = 0 among others.
        share = tl.where(log_miss == float("-inf"), 0.0, tl.exp(log_miss - largest))
        tl.store(relative + at, (share * sign).to(tl.float32), mask=at < end)


def launch_token_statistics(
    hidden: Tensor,  # (rows, dim)
    weight: Tensor,  # (vocab, dim)
    head: HeadMap,
    labels: Tensor,  # (rows,)
    layout: Layout,
    group: Group,
    tiles: Tensor,  # (3 or 4, vocab tiles, tokens or slots) float32 sums of launch_logits; tops become factors
    statistics: Tensor,  # (4, all slots) float64: loss, entropy, log u, dot
    log_rest: Tensor,  # (all slots,) float32
    label_slope: Tensor | None,  # (all slots,) float32 f′(a_y), written under a soft-cap
    *,
    by_slot: bool,
    token_offset: int = 0,
    tokens_bound: int | None = None,
) -> None:
    """Finish the softmax of each token of the group (or of a block of its tokens)."""
    vocab, dim = weight.shape
    tokens_bound = group.tokens_bound if tokens_bound is None else tokens_bound
    config = ROWS
    grid = (ceil_div(tokens_bound, config.tokens),)
    if grid[0] == 0:
        return
    token_statistics_kernel[grid](
        hidden,
        weight,
        tensor_or(head.bias, hidden),
        labels,
        layout.token_row,
        layout.token_slot,
        layout.scored_start,
        layout.slot_start,
        *(tiles[min(i, tiles.shape[0] - 1)] for i in range(4)),
        statistics,
        log_rest,
        tensor_or(label_slope, log_rest),
        group.first_sample,
        group.samples,
        token_offset,
        tokens_bound,
        tiles.shape[1],
        hidden.stride(0),
        weight.stride(0),
        vocab,
        dim,
        tiles.stride(1),
        statistics.shape[1],
        head.logit_scale,
        1.0 if head.softcap is None else head.softcap,
        HAS_BIAS=head.bias is not None,
        HAS_SCALE=head.logit_scale != 1.0,
        HAS_CAP=head.softcap is not None,
        BY_SLOT=by_slot,
        BLOCK_TOKENS=config.tokens,
        BLOCK_TILES=config.tiles,
        BLOCK_DIM=config.dim,
        num_warps=config.warps,
    )


def launch_sample_sums(
    statistics: Tensor,  # (4, all slots) float64
    layout: Layout,
    group: Group,
    token_weight: Tensor,  # (all samples,) float64, w of the loss: 1/N or 1
    sums: Tensor,  # (all samples, 4) float64; columns 0 to 2 written: loss, entropy, ⟨W, G⟩
    scale: Tensor,  # (all samples,) float64, written: s, the largest token magnitude w u |f′|
    relative: Tensor,  # (all slots,) float32, written: each token's signed share of s, 0 for pads
    *,
    slope: float,
) -> None:
    """Sum tokens to samples."""
    sample_sums_kernel[(group.samples,)](
        statistics,
        layout.slot_start,
        layout.counts,
        token_weight,
        sums,
        scale,
        relative,
        group.first_sample,
        statistics.shape[1],
        abs(slope),
        -1.0 if slope < 0.0 else 1.0,
        BLOCK=ROWS.sample_block,
        num_warps=ROWS.warps,
    )
