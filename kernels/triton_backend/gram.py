"""‖G‖² of a linear update, and ⟨G_i, G_j⟩ of two sets of samples, from pairs of tokens; no gradient is formed.

    ⟨G_i, G_j⟩ = s_i s_j Σ_{t ∈ i} Σ_{s ∈ j} share_t share_s (E_t · E_s + L_ts)(h_t · h_s)          (``pairs.py``)

The unit of work is a pair of token tiles: within one sample i ≥ j, where pairs off the diagonal count twice, or one of
each set (CROSS). Three kernels, so that each keeps one tile of sums in registers:

    states_kernel        S_ts = h_t · h_s of a pair, stored
    label_terms_kernel   Σ share_t share_s L_ts S_ts of the stored columns
    gram_kernel          Σ share_t share_s (E_t · E_s) S_ts over a part of the stored columns

Long samples are distributed over many programs, and few pairs over parts of the vocabulary. On the diagonal both tiles
are the same rows, which are loaded once.

S takes T² · 4 bytes a pair, with ceil(n/T)(ceil(n/T) + 1)/2 pairs for n tokens in tiles of T: 2 % of E for n = 150 and
4 % for n = 1,000 (V = 32000, T = 128). If not all pairs of a group fit (``pairs_held``), they are processed in batches,
and S is computed again for every chunk of the vocabulary; otherwise once per group.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import GramConfig, ceil_div
from donod_fast.kernels.triton_backend.language import INTERPRETING, LAUNCH_OPTIONS, share_of
from donod_fast.kernels.triton_backend.layout import Group
from donod_fast.kernels.triton_backend.pairs import Side, chain, find_pair, load_row, load_shares

# Columns of a pair of tiles at a time for the label terms: their addresses fill registers.
LABELS = 16


@triton.jit(
    do_not_specialize=["left_first", "left_samples", "right_first", "right_samples", "first_pair", "right_tiles"]
)
def states_kernel(
    left_hidden, right_hidden, left_slot_row, right_slot_row, left_slot_start, right_slot_start, left_counts,
    right_counts, left_step_sample, right_step_sample, pair_start, states,
    left_first, left_samples, right_first, right_samples, first_pair, right_tiles,
    left_hidden_stride, right_hidden_stride, dim,
    CROSS: tl.constexpr, EVEN_DIM: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Products h · h of a pair. Grid: (pairs at most,)."""
    exists, left, right, left_last, right_last = find_pair(
        first_pair + tl.program_id(0), pair_start, left_slot_start, right_slot_start, left_counts, right_counts,
        left_step_sample, right_step_sample, left_first, left_samples, right_first, right_samples, right_tiles,
        CROSS, BLOCK_TOKENS,
    )  # fmt: skip
    if not exists:
        return
    cells = tl.arange(0, BLOCK_TOKENS)
    products = chain(
        left_hidden, right_hidden,
        load_row(left + cells, left_last, left_slot_row), load_row(right + cells, right_last, right_slot_row),
        left_hidden_stride, right_hidden_stride, 0, dim, (not CROSS) and (left == right),
        EVEN_DIM, PRECISION, INTERPRETED, BLOCK_TOKENS, BLOCK_DIM,
    )  # fmt: skip
    place = states + tl.program_id(0).to(tl.int64) * (BLOCK_TOKENS * BLOCK_TOKENS)
    tl.store(place + cells[:, None] * BLOCK_TOKENS + cells[None, :], products)


@triton.jit(
    do_not_specialize=[
        "left_first", "left_samples", "right_first", "right_samples", "first_pair", "right_tiles", "first_block",
        "width",
    ]
)  # fmt: skip
def label_terms_kernel(
    left_exps, right_exps, left_share, right_share, left_label_signal, right_label_signal, left_labels, right_labels,
    left_slot_row, right_slot_row, left_slot_start, right_slot_start, left_counts, right_counts, left_step_sample,
    right_step_sample, pair_start, states, partials,
    left_first, left_samples, right_first, right_samples, first_pair, right_tiles, first_block, columns, width,
    left_exps_stride, right_exps_stride,
    CROSS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_LABELS: tl.constexpr,
):  # fmt: skip
    """Label terms of a pair, into the first of the ``width`` sums of a pair. Grid: (pairs at most,)."""
    pair = first_pair + tl.program_id(0)
    exists, left, right, left_last, right_last = find_pair(
        pair, pair_start, left_slot_start, right_slot_start, left_counts, right_counts,
        left_step_sample, right_step_sample, left_first, left_samples, right_first, right_samples, right_tiles,
        CROSS, BLOCK_TOKENS,
    )  # fmt: skip
    if not exists:
        return
    first_column = first_block * BLOCK_COLUMNS
    same = (not CROSS) and (left == right)
    t = left + tl.arange(0, BLOCK_TOKENS)
    t_share = load_shares(t, left_last, left_share)
    t_column = tl.load(left_labels + load_row(t, left_last, left_slot_row)).to(tl.int32) - first_column
    t_stored = (t_column >= 0) & (t_column < columns)
    t = tl.minimum(t, left_last)
    t_signal = tl.load(left_label_signal + t)
    t_place = (t - tl.load(left_slot_start + left_first)).to(tl.int64) * left_exps_stride
    right_base = tl.load(right_slot_start + right_first)
    place = states + tl.program_id(0).to(tl.int64) * (BLOCK_TOKENS * BLOCK_TOKENS)
    place += tl.arange(0, BLOCK_TOKENS)[:, None] * BLOCK_TOKENS + tl.arange(0, BLOCK_LABELS)[None, :]
    total = tl.zeros((BLOCK_TOKENS, BLOCK_LABELS), dtype=tl.float32)
    for start in range(0, BLOCK_TOKENS, BLOCK_LABELS):
        s = right + start + tl.arange(0, BLOCK_LABELS)
        s_share = load_shares(s, right_last, right_share)
        s_column = tl.load(right_labels + load_row(s, right_last, right_slot_row)).to(tl.int32) - first_column
        s_stored = (s_column >= 0) & (s_column < columns)
        s = tl.minimum(s, right_last)
        s_signal = tl.load(right_label_signal + s)
        at = t_place[:, None] + tl.where(s_stored, s_column, 0)[None, :]
        entries = tl.load(left_exps + at, mask=s_stored[None, :], other=0.0).to(tl.float32) * s_signal[None, :]
        if same:
            entries += entries  # the tile's other terms are the mirror image, with the same sum
        else:
            at = ((s - right_base).to(tl.int64) * right_exps_stride)[None, :] + tl.where(t_stored, t_column, 0)[:, None]
            mirror = tl.load(right_exps + at, mask=t_stored[:, None], other=0.0)
            entries += mirror.to(tl.float32) * t_signal[:, None]
        equal = t_stored[:, None] & (t_column[:, None] == s_column[None, :])
        entries = tl.where(equal, t_signal[:, None] * s_signal[None, :], 0.0) - entries
        total += ((entries * t_share[:, None]) * s_share[None, :]) * tl.load(place)
        place += BLOCK_LABELS
    at = partials + pair.to(tl.int64) * width
    if CROSS:
        # Chunks of the vocabulary are added; no other program writes this cell.
        tl.store(at, tl.load(at) + tl.sum(total))
    else:
        tl.store(at, tl.sum(total) * tl.where(same, 1.0, 2.0))


@triton.jit(
    do_not_specialize=[
        "left_first", "left_samples", "right_first", "right_samples", "first_pair", "right_tiles", "parts", "width",
    ]
)  # fmt: skip
def gram_kernel(
    left_exps, right_exps, left_share, right_share, left_slot_start, right_slot_start, left_counts, right_counts,
    left_step_sample, right_step_sample, pair_start, states, partials,
    left_first, left_samples, right_first, right_samples, first_pair, right_tiles, columns, parts, width,
    left_exps_stride, right_exps_stride,
    CROSS: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """One of ``parts`` parts of the columns for a pair, into its sum 1 + part (CROSS: sum 0). Grid: (pairs, parts)."""
    pair = first_pair + tl.program_id(0)
    part = tl.program_id(1)
    exists, left, right, left_last, right_last = find_pair(
        pair, pair_start, left_slot_start, right_slot_start, left_counts, right_counts,
        left_step_sample, right_step_sample, left_first, left_samples, right_first, right_samples, right_tiles,
        CROSS, BLOCK_TOKENS,
    )  # fmt: skip
    if not exists:
        return
    cells = tl.arange(0, BLOCK_TOKENS)
    # Parts are whole blocks of columns.
    of_part = tl.cdiv(columns // BLOCK_COLUMNS, parts) * BLOCK_COLUMNS
    signal = chain(
        left_exps, right_exps,
        tl.minimum(left + cells, left_last) - tl.load(left_slot_start + left_first),
        tl.minimum(right + cells, right_last) - tl.load(right_slot_start + right_first),
        left_exps_stride, right_exps_stride, part * of_part, min(part * of_part + of_part, columns),
        (not CROSS) and (left == right), True, PRECISION, INTERPRETED, BLOCK_TOKENS, BLOCK_COLUMNS,
    )  # fmt: skip
    signal *= load_shares(left + cells, left_last, left_share)[:, None]
    WIDTH: tl.constexpr = BLOCK_TOKENS // SPLIT
    some = tl.arange(0, WIDTH)
    place = states + tl.program_id(0).to(tl.int64) * (BLOCK_TOKENS * BLOCK_TOKENS)
    place += cells[:, None] * BLOCK_TOKENS + some[None, :]
    total = tl.zeros((BLOCK_TOKENS,), dtype=tl.float32)
    for number in tl.static_range(SPLIT):
        share = load_shares(right + number * WIDTH + some, right_last, right_share)
        weighted = share_of(signal, number, SPLIT, BLOCK_TOKENS, BLOCK_TOKENS) * share[None, :]
        total += tl.sum(weighted * tl.load(place + number * WIDTH), 1)
    if CROSS:
        at = partials + pair.to(tl.int64) * width
        tl.store(at, tl.load(at) + tl.sum(total))
    else:
        twice = tl.where(left == right, 1.0, 2.0)
        tl.store(partials + pair.to(tl.int64) * width + 1 + part, tl.sum(total) * twice)


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


def pairs_held(pairs: int, nbytes: int, config: GramConfig) -> int:
    """Number of pairs, at least one, whose products h · h fit into ``nbytes`` bytes: config.tokens² · 4 for each."""
    return max(1, min(pairs, nbytes // (4 * config.tokens**2)))


def launch_gram(
    side: Side,  # columns of E in whole blocks of config.columns
    pair_start: Tensor,  # (all samples + 1,) int32 of pair_bounds
    states: Tensor,  # (pairs held, config.tokens²) float32; if it holds all pairs, keep it for the next columns
    partials: Tensor,  # (pairs at most, 1 + parts) float32, written
    config: GramConfig,
    *,
    first_column: int,
) -> None:
    """Fill ``partials`` for the pairs of the group's samples; rows past the last pair are not changed."""
    _launch(side, side, pair_start, states, partials, partials.shape[1] - 1, config, first_column, right_tiles=0)


def launch_cross(
    left: Side,  # slots aligned to config.tokens, columns of E in whole blocks of config.columns
    right: Side,  # as left
    states: Tensor,  # (pairs held, config.tokens²) float32; if it holds all pairs, keep it for the next columns
    partials: Tensor,  # (left tiles, right tiles) float32, contiguous, added to
    config: GramConfig,
    *,
    first_column: int,
) -> None:
    """Add the products over the stored columns to ``partials``."""
    tiles = partials.shape[1]
    _launch(left, right, states, states, partials.view(-1, 1), 1, config, first_column, right_tiles=tiles)


def _launch(
    left: Side,
    right: Side,
    pair_start: Tensor,
    states: Tensor,
    partials: Tensor,
    parts: int,
    config: GramConfig,
    first_column: int,
    *,
    right_tiles: int,
) -> None:
    pairs, width = partials.shape
    held = states.shape[0]
    columns, dim = left.exps.shape[1], left.hidden.shape[1]
    first_block = first_column // config.columns
    tables = (
        left.layout.slot_start,
        right.layout.slot_start,
        left.layout.counts,
        right.layout.counts,
        left.layout.step_sample,
        right.layout.step_sample,
        pair_start,
        states,
    )
    samples = (left.group.first_sample, left.group.samples, right.group.first_sample, right.group.samples)
    rows = (left.layout.slot_row, right.layout.slot_row)
    shares = (left.share, right.share)
    strides = (left.exps.stride(0), right.exps.stride(0))
    options: dict[str, Any] = {"num_warps": config.warps, "num_stages": config.stages, **LAUNCH_OPTIONS}
    tile: dict[str, Any] = {"CROSS": right_tiles > 0, "BLOCK_TOKENS": config.tokens, **options}
    products = {"PRECISION": config.precision(left.exps.dtype), "INTERPRETED": INTERPRETING}
    for first_pair in range(0, pairs, held):
        some = min(held, pairs - first_pair)
        if first_column == 0 or held < pairs:
            states_kernel[(some,)](
                left.hidden,
                right.hidden,
                *rows,
                *tables,
                *samples,
                first_pair,
                right_tiles,
                left.hidden.stride(0),
                right.hidden.stride(0),
                dim,
                EVEN_DIM=dim % config.dim == 0,
                BLOCK_DIM=config.dim,
                **products,
                **tile,
            )
        label_terms_kernel[(some,)](
            left.exps,
            right.exps,
            *shares,
            left.label_signal,
            right.label_signal,
            left.labels,
            right.labels,
            *rows,
            *tables,
            partials,
            *samples,
            first_pair,
            right_tiles,
            first_block,
            columns,
            width,
            *strides,
            BLOCK_COLUMNS=config.columns,
            BLOCK_LABELS=min(LABELS, config.tokens),
            **tile,
        )
        gram_kernel[(some, parts)](
            left.exps,
            right.exps,
            *shares,
            *tables,
            partials,
            *samples,
            first_pair,
            right_tiles,
            columns,
            parts,
            width,
            *strides,
            SPLIT=config.split,
            BLOCK_COLUMNS=config.columns,
            **products,
            **tile,
        )
