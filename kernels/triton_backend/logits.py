"""Head forward: logits tile by tile, their exponentials, and sums for the softmax without the label.

For scored tokens t and vocabulary rows v, with a = W h and z = f(a) (``head_map.py``), a reference of each token
(``label_logits.py``: the logit of its label, or ``rescue.py``) and x = z − reference:

    E_tv = e^{x_v} φ_v, 0 at the label y and past the vocabulary

with φ = f′ up to a constant factor that is left to the samples' scale: 1, or f′ / (4 logit_scale) under a soft-cap;
and per token and block of ``config.vocab`` vocabulary rows, without the label's column:

    Σ e^x           → 1 − p_y, loss
    Σ e^x x         → entropy, and ⟨W, G⟩ if f is a scale
    Σ e^x φ a       → ⟨W, G⟩ otherwise

E has one scale per token, so no pass over it follows. bfloat16 has the range of float32: E is exact to its rounding
while log Σ e^x is within ±``FAR`` of 0; ``rescue.py`` computes other tokens again. Columns that the workspace could not
hold the first time are computed later without sums, with the same reference. Logits are in units of log 2 here: e^x
is one instruction. The sums are in the same units.

The tokens of a program are arbitrary rows of ``hidden`` and go to their slots in E (``layout.py``). Programs iterate
over the tokens first, for one group of tiles at a time, so that W is read from memory once per group and the group's
hidden states stay in the second-level cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.float8 import SMALL_HEAD
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.configs import LogitsConfig, ceil_div
from donod_fast.kernels.triton_backend.language import (
    INTERPRETING,
    LAUNCH_OPTIONS,
    LEFT_OUT,
    RECIPROCAL,
    HeadNumbers,
    dot,
    exp2,
    narrow,
    reciprocal,
    share_of,
    tensor_or,
)
from donod_fast.kernels.triton_backend.layout import Group, Layout
from donod_fast.kernels.triton_backend.tma import describable, described


@triton.jit
def shifted_logits(
    a, columns, reference, bias, vocab, scale_log2, decay_rate, cap_log2,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, RECIPROCAL: tl.constexpr,
):  # fmt: skip
    """Compute x = z − reference in units of log 2, and f′ / slope_scale under a soft-cap, of pre-activations a.

    Both are (tokens, columns).
    """
    x = a
    slope = 1.0
    if HAS_BIAS:
        x += tl.load(bias + columns, mask=columns < vocab, other=0.0).to(tl.float32)[None, :]
    if HAS_CAP:
        # tanh |x| = 1 − 2 tail and its derivative 4 tail (1 − tail), with a tail that keeps its digits when the cap
        # saturates.
        decay = exp2(tl.abs(x) * decay_rate, RECIPROCAL)
        inverse = reciprocal(1.0 + decay, RECIPROCAL)
        tail = decay * inverse
        slope = tail * inverse
        # With the sign of x, by its bit.
        size = (cap_log2 - 2.0 * cap_log2 * tail).to(tl.int32, bitcast=True)
        x = (size ^ (x.to(tl.int32, bitcast=True) & -0x80000000)).to(tl.float32, bitcast=True) - reference[:, None]
    else:
        x = x * scale_log2 - reference[:, None]
        if HAS_BIAS:
            x = tl.where(x < LEFT_OUT, LEFT_OUT, x)  # a bias of −inf; not tl.maximum, which drops NaN
    return x, slope


@triton.jit
def exponentials(
    a, first, place, label, reference, excludes, bias, vocab, scale_log2, decay_rate, cap_log2,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, EVEN_VOCAB: tl.constexpr, RECIPROCAL: tl.constexpr,
):  # fmt: skip
    """Compute x, e^x and E of pre-activations a, (tokens, columns), of the vocabulary rows ``first`` + ``place``.

    The last two are 0 at a label and past the vocabulary, which ``excludes`` says that these rows contain.
    """
    x, slope = shifted_logits(
        a, first + place, reference, bias, vocab, scale_log2, decay_rate, cap_log2, HAS_BIAS, HAS_CAP, RECIPROCAL
    )
    if excludes:
        others = place[None, :] != (label - first)[:, None]
        if not EVEN_VOCAB:
            others &= (place < vocab - first)[None, :]
        x = tl.where(others, x, LEFT_OUT)
    e = exp2(x, RECIPROCAL)
    stored = e
    if HAS_CAP:
        stored = e * slope
    return x, e, stored


@triton.jit(do_not_specialize=["first_sample", "samples", "token_offset", "tokens_bound", "first_block", "blocks"])
def logits_kernel(
    hidden,
    weight,
    bias,
    labels,
    token_row,
    token_slot,
    scored_start,
    slot_start,
    reference,
    exps,
    sums,
    first_sample,
    samples,
    token_offset,
    tokens_bound,
    hidden_stride,
    weight_stride,
    vocab,
    dim,
    first_block,
    blocks,
    stored,
    exps_stride,
    sum_stride,
    block_stride,
    scale_log2,
    decay_rate,
    cap_log2,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    SUMS: tl.constexpr,
    STORE: tl.constexpr,
    TMA: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    EVEN_VOCAB: tl.constexpr,
    PRECISION: tl.constexpr,
    RECIPROCAL: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SPLIT: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One block of tokens × vocabulary; see the module's docstring. Grid: (token blocks · vocabulary blocks,)."""
    token_blocks = tl.cdiv(tokens_bound, BLOCK_TOKENS)
    group = tl.program_id(0) // (GROUP * blocks)
    in_group = tl.program_id(0) % (GROUP * blocks)
    width = min(token_blocks - group * GROUP, GROUP)
    token_block = group * GROUP + in_group % width
    block = in_group // width

    begin = tl.load(scored_start + first_sample) + token_offset
    count = min(tl.load(scored_start + first_sample + samples) - begin, tokens_bound)
    if token_block * BLOCK_TOKENS >= count:
        return
    tokens = token_block * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    valid = tokens < count
    rows = tl.load(token_row + begin + tokens, mask=valid, other=0)
    slots = tl.load(token_slot + begin + tokens, mask=valid, other=0)
    # 32 bits are enough: a label outside the vocabulary has a reference of NaN.
    label = tl.load(labels + rows, mask=valid, other=-1).to(tl.int32)
    base_value = tl.load(reference + slots, mask=valid, other=0.0)
    local = (slots - tl.load(slot_start + first_sample)).to(tl.int64)

    # Counted in blocks, so that the compiler knows how addresses are aligned.
    base = (first_block + block) * BLOCK_VOCAB
    columns = base + tl.arange(0, BLOCK_VOCAB)
    weight_rows = columns.to(tl.int64)
    if not EVEN_VOCAB:
        # Rows past the end repeat a real one and are excluded below, so that the loop needs no mask.
        weight_rows = tl.minimum(columns, vocab - 1).to(tl.int64)
    k = tl.arange(0, BLOCK_DIM)
    left = hidden + rows.to(tl.int64)[:, None] * hidden_stride + k[None, :]
    tl.assume(dim > 0)
    a = tl.zeros((BLOCK_TOKENS, BLOCK_VOCAB), dtype=tl.float32)
    if not TMA:
        right = weight + weight_rows[None, :] * weight_stride + k[:, None]
    for start in range(0, dim, BLOCK_DIM):
        if EVEN_DIM:
            h = tl.load(left)
        else:
            h = tl.load(left, mask=k[None, :] < dim - start, other=0.0)
        if TMA:
            w = tl.trans(weight.load([base, start]))
        elif EVEN_DIM:
            w = tl.load(right)
        else:
            w = tl.load(right, mask=k[:, None] < dim - start, other=0.0)
        a = dot(h, w, a, PRECISION, INTERPRETED)
        left += BLOCK_DIM
        if not TMA:
            right += BLOCK_DIM

    # The epilogue processes one part at a time: its values for the whole block would not fit in registers. Few parts
    # contain a label. The others need no comparison: a count of labels per part, 8 bits each, tells them apart.
    tl.static_assert((BLOCK_TOKENS < 256) and (SPLIT <= 4))
    TILE: tl.constexpr = BLOCK_VOCAB // SPLIT
    inside = label - base
    held = (inside >= 0) & (inside < BLOCK_VOCAB)
    counts = tl.sum(tl.where(held, 1 << (tl.where(held, inside, 0) // TILE * 8), 0), 0)
    target = exps + local[:, None] * exps_stride + (block * BLOCK_VOCAB + tl.arange(0, TILE))[None, :]
    rest = tl.zeros((BLOCK_TOKENS, TILE // 8), dtype=tl.float32)
    shifted = tl.zeros((BLOCK_TOKENS, TILE // 8), dtype=tl.float32)
    products = tl.zeros((BLOCK_TOKENS, TILE // 8), dtype=tl.float32)
    for part in tl.static_range(SPLIT):
        excludes = (counts >> (8 * part)) & 0xFF > 0
        if not EVEN_VOCAB:
            excludes |= base + (part + 1) * TILE > vocab
        own = share_of(a, part, SPLIT, BLOCK_TOKENS, BLOCK_VOCAB)
        x, e, kept = exponentials(
            own, base + part * TILE, tl.arange(0, TILE), label, base_value, excludes, bias, vocab,
            scale_log2, decay_rate, cap_log2, HAS_BIAS, HAS_CAP, EVEN_VOCAB, RECIPROCAL,
        )  # fmt: skip
        if SUMS:
            # Folded within a thread, so that few registers hold the sums.
            for fold in tl.static_range(8):
                e_own = share_of(e, fold, 8, BLOCK_TOKENS, TILE)
                rest += e_own
                shifted += e_own * share_of(x, fold, 8, BLOCK_TOKENS, TILE)
                if HAS_BIAS or HAS_CAP:
                    a_own = share_of(own, fold, 8, BLOCK_TOKENS, TILE)
                    products += share_of(kept, fold, 8, BLOCK_TOKENS, TILE) * a_own
        if STORE:
            if block * BLOCK_VOCAB < stored:
                tl.store(target + part * TILE, narrow(kept, exps.dtype.element_ty, INTERPRETED), mask=valid[:, None])
    if SUMS:
        at = sums + block.to(tl.int64) * block_stride + tokens
        tl.store(at, tl.sum(rest, 1), mask=valid)
        tl.store(at + sum_stride, tl.sum(shifted, 1), mask=valid)
        if HAS_BIAS or HAS_CAP:
            tl.store(at + 2 * sum_stride, tl.sum(products, 1), mask=valid)


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
    reference: Tensor,  # (all slots,) float32, in units of log 2
    exps: Tensor | None,  # (slots, columns) written where given; its columns are whole blocks
    sums: Tensor | None,  # (2 or 3, vocabulary blocks, tokens) float32, written where given, for the whole vocabulary
    config: LogitsConfig,
    *,
    first_column: int = 0,
    token_offset: int = 0,
    tokens_bound: int | None = None,
) -> None:
    """Fill ``exps`` from ``first_column`` on, and ``sums``; no host sync.

    It processes tokens ``token_offset`` to ``token_offset + tokens_bound`` of the group, by default all of them.
    """
    vocab, dim = weight.shape
    tokens_bound = group.tokens_bound if tokens_bound is None else tokens_bound
    stored = 0 if exps is None else exps.shape[1]
    blocks = ceil_div(stored, config.vocab) if sums is None else vocabulary_blocks(vocab, stored, config)
    grid = (ceil_div(tokens_bound, config.tokens) * blocks,)
    if grid[0] == 0:
        return
    tma = config.tma and describable(weight)
    logits_kernel[grid](
        hidden,
        described(weight, (config.vocab, config.dim), tma),
        tensor_or(head.bias, hidden),
        labels,
        layout.token_row,
        layout.token_slot,
        layout.scored_start,
        layout.slot_start,
        reference,
        tensor_or(exps, hidden),
        tensor_or(sums, reference),
        group.first_sample,
        group.samples,
        token_offset,
        tokens_bound,
        hidden.stride(0),
        weight.stride(0),
        vocab,
        dim,
        first_column // config.vocab,
        blocks,
        stored,
        0 if exps is None else exps.stride(0),
        0 if sums is None else sums.stride(0),
        0 if sums is None else sums.stride(1),
        *HeadNumbers.of(head),
        HAS_BIAS=head.bias is not None,
        HAS_CAP=head.softcap is not None,
        SUMS=sums is not None,
        STORE=exps is not None,
        TMA=tma,
        EVEN_DIM=dim % config.dim == 0,
        EVEN_VOCAB=first_column + blocks * config.vocab <= vocab,
        PRECISION=config.precision(hidden.dtype),
        RECIPROCAL=RECIPROCAL,
        INTERPRETED=INTERPRETING,
        BLOCK_TOKENS=config.tokens,
        BLOCK_VOCAB=config.vocab,
        BLOCK_DIM=config.dim,
        SPLIT=config.split,
        GROUP=config.group,
        num_warps=config.warps,
        num_stages=config.stages,
        **LAUNCH_OPTIONS,
    )


def vocabulary_blocks(vocab: int, stored: int, config: LogitsConfig) -> int:
    """Blocks of the vocabulary for which ``launch_logits`` computes sums; those past its end have sums of 0."""
    return ceil_div(max(vocab, stored), config.vocab)


def signals_dtype(dtype: torch.dtype, elements: int | None = None) -> torch.dtype:
    """Dtype of E and of the error signals, for inputs of ``dtype`` and a W with this number of elements.

    bfloat16 has the range that float16 lacks (a p_v of 1e-9 counts under AdamW). Its rounding of single signals
    flips the sign of about one element of AdamW's U in 500, an error of DON of some 0.1 NOD / √(V d): below
    ``SMALL_HEAD`` elements that exceeds 3e-5 NOD, and float32 is affordable.
    """
    small = elements is not None and elements < SMALL_HEAD
    return torch.float32 if dtype == torch.float32 or small else torch.bfloat16
