"""Head forward: logits tile by tile, their sums for the softmax without the label, and their exponentials.

For scored tokens t and vocabulary rows v, with a = W h and z = f(a) (``head_map.py``), per token and tile J of
``config.tile`` vocabulary rows, with the label's column y excluded from every sum:

    top_J  = max_{v ∈ J, v ≠ y} z_v
    sum_J  = Σ e^{z_v − top_J}                 → 1 − p_y, loss
    dot_J  = Σ e^{z_v − top_J} (z_v − top_J)   → entropy, and ⟨W, G⟩ if f is a scale
    a_J    = Σ e^{z_v − top_J} f′_v a_v        → ⟨W, G⟩ otherwise (bias, soft-cap)

and E_tv = e^{z_v − top_J} (times f′_v under a soft-cap) for the vocabulary rows ``first_column`` to
``first_column + stored``, 0 at the label and past the vocabulary. If the normaliser is known already
(``NORMALISED``), only E_tv = e^{z_v − lse_t} is written: columns that the workspace could not hold the first time are
computed again.

The tokens of a program are arbitrary rows of ``hidden`` and go to their slots in E (``layout.py``). Programs iterate
over the tokens first, for one group of tiles at a time, so that W is read from memory once per group and the group's
hidden states stay in the second-level cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.configs import LogitsConfig, ceil_div
from donod_fast.kernels.triton_backend.language import INTERPRETING, LEFT_OUT, dot, narrow, share_of, tensor_or
from donod_fast.kernels.triton_backend.layout import Group, Layout

SMALL_HEAD = 1 << 23


@triton.jit
def finish_tile(
    a, base, label, valid, slots, local, numbered, bias, log_rest, exps, tile_top, tile_sum, tile_dot, tile_a,
    vocab, first_column, stored, exps_stride, tile_stride, logit_scale, softcap,
    HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr, HAS_CAP: tl.constexpr, NORMALISED: tl.constexpr,
    STORE: tl.constexpr, INTERPRETED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Compute sums and exponentials of a tile of pre-activations a, (tokens, TILE), from vocabulary row ``base``."""
    columns = base + tl.arange(0, TILE)
    z = a
    if HAS_BIAS:
        z += tl.load(bias + columns, mask=columns < vocab, other=0.0).to(tl.float32)[None, :]
    if HAS_SCALE:
        z *= logit_scale
    if HAS_CAP:
        # tanh and its derivative from exp(−2|x|): neither loses digits when the cap saturates.
        decay = tl.exp(tl.abs(z) * (-2.0 / softcap))
        inverse = 1.0 / (1.0 + decay)
        z = tl.where(z < 0.0, -softcap, softcap) * ((1.0 - decay) * inverse)
    others = (columns < vocab)[None, :] & (columns[None, :] != label[:, None])
    if NORMALISED:
        rest = tl.load(log_rest + slots, mask=valid, other=0.0)
        e = tl.where(others, tl.exp(z - rest[:, None]), 0.0)
        if HAS_CAP:
            e *= decay * inverse * inverse * (4.0 * logit_scale)
    else:
        if HAS_BIAS:
            z = tl.where(z < LEFT_OUT, LEFT_OUT, z)  # a bias of −inf; not tl.maximum, which drops NaN
        z = tl.where(others, z, LEFT_OUT)
        top = tl.max(z, 1)
        z -= top[:, None]
        e = tl.where(others, tl.exp(z), 0.0)
        at = (base // TILE).to(tl.int64) * tile_stride
        if STORE:
            at += local
        else:
            at += numbered
        tl.store(tile_top + at, top, mask=valid)
        tl.store(tile_sum + at, tl.sum(e, 1), mask=valid)
        tl.store(tile_dot + at, tl.sum(e * z, 1), mask=valid)
        if HAS_CAP:
            e *= decay * inverse * inverse * (4.0 * logit_scale)
        if HAS_BIAS or HAS_CAP:
            tl.store(tile_a + at, tl.sum(e * a, 1), mask=valid)
    if STORE or NORMALISED:
        # Stored columns are whole tiles.
        if base - first_column < stored:
            place = exps + (base - first_column) + local[:, None] * exps_stride + tl.arange(0, TILE)[None, :]
            tl.store(place, narrow(e, exps.dtype.element_ty, INTERPRETED), mask=valid[:, None])


@triton.jit(do_not_specialize=["first_sample", "samples", "token_offset", "tokens_bound", "first_tile"])
def logits_kernel(
    hidden,
    weight,
    bias,
    labels,
    token_row,
    token_slot,
    scored_start,
    slot_start,
    log_rest,
    exps,
    tile_top,
    tile_sum,
    tile_dot,
    tile_a,
    first_sample,
    samples,
    token_offset,
    tokens_bound,
    hidden_stride,
    weight_stride,
    vocab,
    dim,
    first_tile,
    stored,
    exps_stride,
    tile_stride,
    logit_scale,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_CAP: tl.constexpr,
    NORMALISED: tl.constexpr,
    STORE: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SPLIT: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One tile of tokens × vocabulary; see the module's docstring. Grid: (token tiles · vocabulary tiles,)."""
    token_tiles = tl.cdiv(tokens_bound, BLOCK_TOKENS)
    if NORMALISED:
        vocab_tiles = tl.cdiv(stored, BLOCK_VOCAB)
    else:
        vocab_tiles = tl.cdiv(vocab, BLOCK_VOCAB)
    group = tl.program_id(0) // (GROUP * vocab_tiles)
    in_group = tl.program_id(0) % (GROUP * vocab_tiles)
    width = min(token_tiles - group * GROUP, GROUP)
    token_tile = group * GROUP + in_group % width
    vocab_tile = in_group // width

    begin = tl.load(scored_start + first_sample) + token_offset
    end = min(tl.load(scored_start + first_sample + samples), begin + tokens_bound)
    tokens = begin + token_tile * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    if begin + token_tile * BLOCK_TOKENS >= end:
        return
    valid = tokens < end
    rows = tl.load(token_row + tokens, mask=valid, other=0)
    label = tl.load(labels + rows, mask=valid, other=-1)
    slots = tl.load(token_slot + tokens, mask=valid, other=0)
    local = (slots - tl.load(slot_start + first_sample)).to(tl.int64)

    # Counted in tiles, so that the compiler knows how addresses are aligned.
    first_column = first_tile * (BLOCK_VOCAB // SPLIT)
    if NORMALISED:
        base = first_column + vocab_tile * BLOCK_VOCAB
    else:
        base = vocab_tile * BLOCK_VOCAB
    columns = base + tl.arange(0, BLOCK_VOCAB)
    # Rows past the end repeat a real one and are excluded below, so that the loop needs no mask.
    weight_rows = tl.minimum(columns, vocab - 1).to(tl.int64)
    k = tl.arange(0, BLOCK_DIM)
    left = hidden + rows.to(tl.int64)[:, None] * hidden_stride + k[None, :]
    right = weight + weight_rows[None, :] * weight_stride + k[:, None]
    a = tl.zeros((BLOCK_TOKENS, BLOCK_VOCAB), dtype=tl.float32)
    for start in range(0, dim, BLOCK_DIM):
        if EVEN_DIM:
            h = tl.load(left)
            w = tl.load(right)
        else:
            h = tl.load(left, mask=k[None, :] < dim - start, other=0.0)
            w = tl.load(right, mask=k[:, None] < dim - start, other=0.0)
        a = dot(h, w, a, PRECISION, INTERPRETED)
        left += BLOCK_DIM
        right += BLOCK_DIM

    # The epilogue processes one tile width at a time: its values for the whole block would not fit in registers.
    for part in tl.static_range(SPLIT):
        finish_tile(
            share_of(a, part, SPLIT, BLOCK_TOKENS, BLOCK_VOCAB), base + part * (BLOCK_VOCAB // SPLIT), label, valid,
            slots, local, tokens - begin, bias, log_rest, exps, tile_top, tile_sum, tile_dot, tile_a,
            vocab, first_column, stored, exps_stride, tile_stride, logit_scale, softcap,
            HAS_BIAS, HAS_SCALE, HAS_CAP, NORMALISED, STORE, INTERPRETED, BLOCK_VOCAB // SPLIT,
        )  # fmt: skip


def supports(hidden: Tensor, weight: Tensor) -> str | None:
    """Reason why the kernel does not support the input, or None: rows of both must be contiguous in memory."""
    for name, tensor in (("hidden", hidden), ("weight", weight)):
        if tensor.stride(1) != 1:
            return f"{name} must be contiguous along its rows (stride 1 in the last dimension)"
    return None


def launch_logits(
    hidden: Tensor,  # (rows, dim) bfloat16, float16 or float32
    weight: Tensor,  # (vocab, dim) the same dtype
    head: HeadMap,
    labels: Tensor,  # (rows,) int64 or int32
    layout: Layout,
    group: Group,
    exps: Tensor | None,  # (slots, columns) written where given; its columns are whole blocks
    tiles: Tensor | None,  # (3 or 4, vocab tiles, tokens or slots) float32 sums; None: the normaliser is known
    log_rest: Tensor | None,  # (all slots,) float32, read where the normaliser is known
    config: LogitsConfig,
    *,
    first_column: int = 0,
    token_offset: int = 0,
    tokens_bound: int | None = None,
) -> None:
    """Fill ``exps`` and ``tiles`` (indexed by slot where exps is given, else by token); no host sync.

    It processes tokens ``token_offset`` to ``token_offset + tokens_bound`` of the group, by default all of them.
    """
    vocab, dim = weight.shape
    normalised = tiles is None
    tokens_bound = group.tokens_bound if tokens_bound is None else tokens_bound
    stored = 0 if exps is None else exps.shape[1]
    vocab_tiles = ceil_div(stored if normalised else vocab, config.vocab)
    grid = (ceil_div(tokens_bound, config.tokens) * vocab_tiles,)
    if grid[0] == 0:
        return
    stand_in = hidden
    parts = [stand_in] * 4 if tiles is None else [tiles[min(i, tiles.shape[0] - 1)] for i in range(4)]
    logits_kernel[grid](
        hidden,
        weight,
        tensor_or(head.bias, stand_in),
        labels,
        layout.token_row,
        layout.token_slot,
        layout.scored_start,
        layout.slot_start,
        tensor_or(log_rest, stand_in),
        tensor_or(exps, stand_in),
        *parts,
        group.first_sample,
        group.samples,
        token_offset,
        tokens_bound,
        hidden.stride(0),
        weight.stride(0),
        vocab,
        dim,
        first_column // config.tile,
        stored,
        0 if exps is None else exps.stride(0),
        0 if tiles is None else tiles.stride(1),
        head.logit_scale,
        1.0 if head.softcap is None else head.softcap,
        HAS_BIAS=head.bias is not None,
        HAS_SCALE=head.logit_scale != 1.0,
        HAS_CAP=head.softcap is not None,
        NORMALISED=normalised,
        STORE=exps is not None,
        EVEN_DIM=dim % config.dim == 0,
        PRECISION=config.precision(hidden.dtype),
        INTERPRETED=INTERPRETING,
        BLOCK_TOKENS=config.tokens,
        BLOCK_VOCAB=config.vocab,
        BLOCK_DIM=config.dim,
        SPLIT=config.split,
        GROUP=config.group,
        num_warps=config.warps,
        num_stages=config.stages,
    )


def signals_dtype(dtype: torch.dtype, elements: int | None = None) -> torch.dtype:
    """Dtype of E and of the error signals, for inputs of ``dtype`` and a W with this number of elements.

    bfloat16 has the range that float16 lacks (a p_v of 1e-9 counts under AdamW). Its rounding of single signals
    flips the sign of about one element of AdamW's U in 500, an error of DON of some 0.1 NOD / √(V d): below
    ``SMALL_HEAD`` elements that exceeds 3e-5 NOD, and float32 is affordable.
    """
    small = elements is not None and elements < SMALL_HEAD
    return torch.float32 if dtype == torch.float32 or small else torch.bfloat16
