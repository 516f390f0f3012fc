"""‖G‖² of a linear update, and ⟨G_i, G_j⟩ of two sets of samples, from token pairs: no gradient is formed.

With E of ``logits.py`` (e^{z − reference}, 0 at the label), R_t = Σ_v E_tv / f′_v, ℓ_t = f′(a_y), r_t the magnitude of
a token relative to its sample's largest, share_t = r_t / R_t and λ_t = R_t ℓ_t (``rows.py``):

    r_t D_t = share_t (E_t − λ_t onehot(y_t))
    ⟨G_i, G_j⟩ = s_i s_j Σ_{t ∈ i} Σ_{s ∈ j} share_t share_s L_ts (h_t · h_s)
    L_ts = E_t · E_s − λ_s E_t[y_s] − λ_t E_s[y_t] + λ_t λ_s [y_t = y_s]

E_t · E_s is one chain of products on the tensor cores in the stored type; the terms of the labels and the shares are
applied in float32. So the column of the label, which dominates all others, is never rounded. The sum is linear in the
columns, so parts of the vocabulary can be added.

Range: tokens with |log R| > 40 have another reference, so E_t · E_s ≤ R_t R_s ≤ e^80 = 5.5e34 (float32 ends at 3.4e38).
share_t ≤ e^40 is applied on its own before share_s: their product could underflow where r_t r_s does not.

The unit of work is a pair of token tiles (within one sample: i ≥ j, pairs off the diagonal count twice) and a part of
the vocabulary. A program finds its pair by bisecting ``pair_start`` on the device. So one launch covers a batch, and
long samples are distributed over many programs.

Slots past a sample's end are read as its last token with a share of 0. So loads need no mask, and no value of another
sample is touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import GramConfig, ceil_div
from donod_fast.kernels.triton_backend.language import INTERPRETING, dot
from donod_fast.kernels.triton_backend.layout import Group, Layout


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One side of the products: tokens of a set of samples and their stored columns.

    Attributes:
        hidden: (rows, dim).
        exps: (slots, columns) E of the group.
        share: (all slots,) float32, r_t / R_t with a sign, 0 for pads.
        label_signal: (all slots,) float32, R_t ℓ_t.
        labels: (rows,).
        layout, group: positions of the tokens.
    """

    hidden: Tensor
    exps: Tensor
    share: Tensor
    label_signal: Tensor
    labels: Tensor
    layout: Layout
    group: Group


@triton.jit
def load_tokens(slots, last, slot_row, labels, share, label_signal):
    """Load rows of hidden, slots, labels, shares and label signals of a tile of slots, the last up to ``last``."""
    real = slots <= last
    slots = tl.minimum(slots, last)
    row = tl.maximum(tl.load(slot_row + slots), 0).to(tl.int64)
    label = tl.load(labels + row).to(tl.int32)
    share = tl.load(share + slots, mask=real, other=0.0)
    signal = tl.load(label_signal + slots)
    return row, slots, label, share, signal


@triton.jit
def label_terms(exps, local, other_label, other_signal, first_column, start, stop, exps_stride):
    """Compute E_t[y_s] λ_s for tokens t (rows) and s (columns), 0 if y_s is not in start … stop (this part)."""
    inside = (other_label >= start) & (other_label < stop)
    place = exps + local.to(tl.int64)[:, None] * exps_stride + tl.where(inside, other_label - first_column, 0)[None, :]
    return tl.load(place, mask=inside[None, :], other=0.0).to(tl.float32) * other_signal[None, :]


@triton.jit
def pair_products(
    left_hidden, right_hidden, left_exps, right_exps, left_row, right_row, left_local, right_local,
    left_label, right_label, left_share, right_share, left_signal, right_signal,
    first_column, columns, part, parts,
    left_hidden_stride, right_hidden_stride, left_exps_stride, right_exps_stride, dim,
    EVEN_DIM: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Compute Σ_ts share_t share_s L_ts (h_t·h_s) over one pair of token tiles and one part of the columns."""
    # Parts are whole blocks of columns.
    blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    per_part = tl.cdiv(blocks, parts)
    first_block = part * per_part
    last_block = min(first_block + per_part, blocks)
    c = first_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    left = left_exps + left_local.to(tl.int64)[:, None] * left_exps_stride + c[None, :]
    right = right_exps + right_local.to(tl.int64)[None, :] * right_exps_stride + c[:, None]
    signal = tl.zeros((BLOCK_TOKENS, BLOCK_TOKENS), dtype=tl.float32)
    for _ in range(first_block, last_block):
        signal = dot(tl.load(left), tl.load(right), signal, PRECISION, INTERPRETED)
        left += BLOCK_COLUMNS
        right += BLOCK_COLUMNS

    start = first_column + first_block * BLOCK_COLUMNS
    stop = first_column + last_block * BLOCK_COLUMNS
    signal -= label_terms(left_exps, left_local, right_label, right_signal, first_column, start, stop, left_exps_stride)
    signal -= tl.trans(
        label_terms(right_exps, right_local, left_label, left_signal, first_column, start, stop, right_exps_stride)
    )
    same = (left_label[:, None] == right_label[None, :]) & ((left_label >= start) & (left_label < stop))[:, None]
    signal += tl.where(same, left_signal[:, None] * right_signal[None, :], 0.0)
    signal = (signal * left_share[:, None]) * right_share[None, :]

    k = tl.arange(0, BLOCK_DIM)
    left_h = left_hidden + left_row[:, None] * left_hidden_stride + k[None, :]
    right_h = right_hidden + right_row[None, :] * right_hidden_stride + k[:, None]
    states = tl.zeros((BLOCK_TOKENS, BLOCK_TOKENS), dtype=tl.float32)
    for begin in range(0, dim, BLOCK_DIM):
        if EVEN_DIM:
            h_left, h_right = tl.load(left_h), tl.load(right_h)
        else:
            h_left = tl.load(left_h, mask=(k < dim - begin)[None, :], other=0.0)
            h_right = tl.load(right_h, mask=(k < dim - begin)[:, None], other=0.0)
        states = dot(h_left, h_right, states, PRECISION, INTERPRETED)
        left_h += BLOCK_DIM
        right_h += BLOCK_DIM
    return tl.sum(signal * states)


@triton.jit(do_not_specialize=["first_sample", "samples", "first_block", "parts"])
def gram_kernel(
    hidden, exps, share, label_signal, labels, slot_row, slot_start, counts, pair_start, partials,
    first_sample, samples, first_block, columns, parts, hidden_stride, exps_stride, dim,
    EVEN_DIM: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """‖G/s‖² of one pair of tiles of one sample. Grid: (pairs at most, parts)."""
    pair = tl.program_id(0) + tl.load(pair_start + first_sample)
    if pair >= tl.load(pair_start + first_sample + samples):
        return
    # The sample that owns the pair: the last whose pairs begin at or before it.
    low = first_sample
    high = first_sample + samples
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(pair_start + middle) <= pair:
            low = middle
        else:
            high = middle
    within = pair - tl.load(pair_start + low)
    # Row of a cell in the triangle, corrected by one if the root was rounded.
    i = ((tl.sqrt(8.0 * within.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > within, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= within, i + 1, i)
    j = within - i * (i + 1) // 2

    base = tl.load(slot_start + first_sample)
    begin = tl.load(slot_start + low)
    last = begin + tl.load(counts + low) - 1
    offsets = tl.arange(0, BLOCK_TOKENS)
    l_row, l_slot, l_label, l_share, l_signal = load_tokens(
        begin + i * BLOCK_TOKENS + offsets, last, slot_row, labels, share, label_signal
    )
    r_row, r_slot, r_label, r_share, r_signal = load_tokens(
        begin + j * BLOCK_TOKENS + offsets, last, slot_row, labels, share, label_signal
    )
    total = pair_products(
        hidden, hidden, exps, exps, l_row, r_row, l_slot - base, r_slot - base,
        l_label, r_label, l_share, r_share, l_signal, r_signal,
        first_block * BLOCK_COLUMNS, columns, tl.program_id(1), parts,
        hidden_stride, hidden_stride, exps_stride, exps_stride, dim,
        EVEN_DIM, PRECISION, INTERPRETED, BLOCK_TOKENS, BLOCK_COLUMNS, BLOCK_DIM,
    )  # fmt: skip
    twice = tl.where(i == j, 1.0, 2.0)
    tl.store(partials + tl.program_id(0).to(tl.int64) * parts + tl.program_id(1), total * twice)


@triton.jit(
    do_not_specialize=["left_first", "left_samples", "right_first", "right_samples", "first_block", "partials_stride"]
)
def cross_kernel(
    left_hidden, left_exps, left_share, left_label_signal, left_labels, left_slot_row, left_slot_start, left_counts,
    right_hidden, right_exps, right_share, right_label_signal, right_labels, right_slot_row, right_slot_start,
    right_counts, left_step_sample, right_step_sample, partials,
    left_first, left_samples, right_first, right_samples, first_block, columns,
    left_hidden_stride, left_exps_stride, right_hidden_stride, right_exps_stride, partials_stride, dim,
    EVEN_DIM: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One pair of tiles, one of each set; slots are aligned to BLOCK_TOKENS, so a tile belongs to one sample.

    Grid: (left tiles at most, right tiles at most).
    """
    left_base = tl.load(left_slot_start + left_first)
    right_base = tl.load(right_slot_start + right_first)
    left_begin = left_base + tl.program_id(0) * BLOCK_TOKENS
    right_begin = right_base + tl.program_id(1) * BLOCK_TOKENS
    if (left_begin >= tl.load(left_slot_start + left_first + left_samples)) | (
        right_begin >= tl.load(right_slot_start + right_first + right_samples)
    ):
        return
    left_sample = tl.load(left_step_sample + left_begin // BLOCK_TOKENS)
    right_sample = tl.load(right_step_sample + right_begin // BLOCK_TOKENS)
    left_last = tl.load(left_slot_start + left_sample) + tl.load(left_counts + left_sample) - 1
    right_last = tl.load(right_slot_start + right_sample) + tl.load(right_counts + right_sample) - 1
    offsets = tl.arange(0, BLOCK_TOKENS)
    l_row, l_slot, l_label, l_share, l_signal = load_tokens(
        left_begin + offsets, left_last, left_slot_row, left_labels, left_share, left_label_signal
    )
    r_row, r_slot, r_label, r_share, r_signal = load_tokens(
        right_begin + offsets, right_last, right_slot_row, right_labels, right_share, right_label_signal
    )
    total = pair_products(
        left_hidden, right_hidden, left_exps, right_exps, l_row, r_row, l_slot - left_base, r_slot - right_base,
        l_label, r_label, l_share, r_share, l_signal, r_signal, first_block * BLOCK_COLUMNS, columns, 0, 1,
        left_hidden_stride, right_hidden_stride, left_exps_stride, right_exps_stride, dim,
        EVEN_DIM, PRECISION, INTERPRETED, BLOCK_TOKENS, BLOCK_COLUMNS, BLOCK_DIM,
    )  # fmt: skip
    at = partials + tl.program_id(0).to(tl.int64) * partials_stride + tl.program_id(1)
    tl.store(at, tl.load(at) + total)  # chunks of the vocabulary are added; no other program writes these cells


def pair_bounds(
    counts: Tensor,  # (samples,) int32
    config: GramConfig,
) -> Tensor:
    """(samples + 1,) int32: number of pairs of token tiles before each sample."""
    tiles = (counts.long() + config.tokens - 1) // config.tokens
    pairs = tiles * (tiles + 1) // 2
    return torch.cat([pairs.new_zeros(1), pairs.cumsum(0)]).int()


def pairs_at_most(group: Group, config: GramConfig) -> int:
    """Maximum number of pairs of token tiles in a group, from the lengths that the host knows."""
    if group.lengths is not None:
        tiles = [ceil_div(length, config.tokens) for length in group.lengths]
        return sum(n * (n + 1) // 2 for n in tiles)
    # Pairs are convex in the length, so a single sample with all tokens has the most. Each can round up by a tile.
    longest = group.tokens_bound // config.tokens + 2
    return longest * (longest + 1) // 2 + group.samples


def vocabulary_parts(pairs: int, columns: int, config: GramConfig) -> int:
    """Number of parts of the columns, chosen so that few pairs still fill a device."""
    blocks = ceil_div(columns, config.columns)
    return max(1, min(config.programs // max(pairs, 1), blocks // config.blocks_of_a_part, 64))


def launch_gram(
    side: Side,  # columns of E in whole blocks of config.columns
    pair_start: Tensor,  # (all samples + 1,) int32 of pair_bounds
    partials: Tensor,  # (pairs at most, parts) float32, written
    config: GramConfig,
    *,
    first_column: int,
) -> None:
    """Fill ``partials`` for the pairs of the group's samples; rows past the last pair are not changed."""
    group, layout = side.group, side.layout
    if partials.shape[0] == 0:
        return
    gram_kernel[tuple(partials.shape)](
        side.hidden,
        side.exps,
        side.share,
        side.label_signal,
        side.labels,
        layout.slot_row,
        layout.slot_start,
        layout.counts,
        pair_start,
        partials,
        group.first_sample,
        group.samples,
        first_column // config.columns,
        side.exps.shape[1],
        partials.shape[1],
        side.hidden.stride(0),
        side.exps.stride(0),
        side.hidden.shape[1],
        EVEN_DIM=side.hidden.shape[1] % config.dim == 0,
        PRECISION=config.precision(side.exps.dtype),
        INTERPRETED=INTERPRETING,
        BLOCK_TOKENS=config.tokens,
        BLOCK_COLUMNS=config.columns,
        BLOCK_DIM=config.dim,
        num_warps=config.warps,
        num_stages=config.stages,
    )


def launch_cross(
    left: Side,  # slots aligned to config.tokens, columns of E in whole blocks of config.columns
    right: Side,  # as left
    partials: Tensor,  # (left tiles, right tiles) float32, added to
    config: GramConfig,
    *,
    first_column: int,
) -> None:
    """Add the products over the stored columns to ``partials``."""
    if 0 in partials.shape:
        return
    cross_kernel[tuple(partials.shape)](
        left.hidden,
        left.exps,
        left.share,
        left.label_signal,
        left.labels,
        left.layout.slot_row,
        left.layout.slot_start,
        left.layout.counts,
        right.hidden,
        right.exps,
        right.share,
        right.label_signal,
        right.labels,
        right.layout.slot_row,
        right.layout.slot_start,
        right.layout.counts,
        left.layout.step_sample,
        right.layout.step_sample,
        partials,
        left.group.first_sample,
        left.group.samples,
        right.group.first_sample,
        right.group.samples,
        first_column // config.columns,
        left.exps.shape[1],
        left.hidden.stride(0),
        left.exps.stride(0),
        right.hidden.stride(0),
        right.exps.stride(0),
        partials.stride(0),
        left.hidden.shape[1],
        EVEN_DIM=left.hidden.shape[1] % config.dim == 0,
        PRECISION=config.precision(left.exps.dtype),
        INTERPRETED=INTERPRETING,
        BLOCK_TOKENS=config.tokens,
        BLOCK_COLUMNS=config.columns,
        BLOCK_DIM=config.dim,
        num_warps=config.warps,
        num_stages=config.stages,
    )
