"""Compute tokens again whose label is too far from the other logits to be the reference of their exponentials.

If z_v − z_y exceeds some 88 nats, e^{z_v − z_y} overflows float32; if every z_v is as far below z_y, all of them
vanish. ``rows.py`` flags a token long before (``FAR``). For flagged tokens, and only for them:

    1. the largest logit of the others, in parts of the vocabulary
    2. reference := max_{v ≠ y} z_v, E and its sums with this reference, in the same parts
    3. the statistics of ``rows.py``

so that R = Σ_{v ≠ y} e^{z_v − reference} is between 1 and the size of the vocabulary. Later passes read the new
reference. Such tokens are rare, and nothing is read back from the device: each launch has a few hundred programs, which
exit at once if no token is flagged. The sums overwrite those of ``logits.py``, which are used up.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.configs import RESCUE, ROWS, LogitsConfig, ceil_div
from donod_fast.kernels.triton_backend.language import (
    INTERPRETING,
    LAUNCH_OPTIONS,
    LEFT_OUT,
    RECIPROCAL,
    HeadNumbers,
    dot,
    narrow,
    tensor_or,
)
from donod_fast.kernels.triton_backend.layout import Group, Layout
from donod_fast.kernels.triton_backend.logits import exponentials, shifted_logits
from donod_fast.kernels.triton_backend.rows import is_far, launch_token_statistics


@triton.jit(do_not_specialize=["first_sample", "samples", "token_offset", "tokens_bound", "token_blocks"])
def rescue_kernel(
    hidden,
    weight,
    bias,
    labels,
    token_row,
    token_slot,
    scored_start,
    slot_start,
    flagged,
    rest,
    reference,
    exps,
    sums,
    first_sample,
    samples,
    token_offset,
    tokens_bound,
    token_blocks,
    hidden_stride,
    weight_stride,
    vocab,
    dim,
    part_columns,
    stored,
    exps_stride,
    sum_stride,
    block_stride,
    scale_log2,
    decay_rate,
    cap_log2,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    TOPS: tl.constexpr,
    STORE: tl.constexpr,
    PRECISION: tl.constexpr,
    RECIPROCAL: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_FLAGS: tl.constexpr,
):
    """Largest logits (``TOPS``) or exponentials and sums of flagged tokens. Grid: (lanes, parts of the vocabulary)."""
    found = tl.zeros((BLOCK_FLAGS,), dtype=tl.int32)
    for first in range(0, token_blocks, BLOCK_FLAGS):
        at = first + tl.arange(0, BLOCK_FLAGS)
        found += tl.load(flagged + at, mask=at < token_blocks, other=0)
    if tl.sum(found, 0) == 0:
        return
    begin = tl.load(scored_start + first_sample) + token_offset
    end = min(tl.load(scored_start + first_sample + samples), begin + tokens_bound)
    part = tl.program_id(1)
    for token_block in range(tl.program_id(0), token_blocks, tl.num_programs(0)):
        if tl.load(flagged + token_block) > 0:
            tokens = begin + token_block * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
            valid = tokens < end
            row = tl.load(token_row + tokens, mask=valid, other=0)
            slot = tl.load(token_slot + tokens, mask=valid, other=0)
            real = valid & is_far(tl.load(rest + slot, mask=valid, other=1.0))
            label = tl.load(labels + row, mask=valid, other=-1).to(tl.int32)
            local = (slot - tl.load(slot_start + first_sample)).to(tl.int64)
            at = sums + (tokens - begin)
            own = tl.zeros((BLOCK_TOKENS,), dtype=tl.float32)
            top = tl.full((BLOCK_TOKENS,), LEFT_OUT, dtype=tl.float32)
            if not TOPS:
                # The tops of all parts, in rows of the table that the sums do not use.
                rows = PARTS + tl.arange(0, PARTS)
                tops = tl.load(
                    at[None, :] + rows.to(tl.int64)[:, None] * block_stride, mask=real[None, :], other=LEFT_OUT
                )
                own = tl.max(tops, 0)
                if part == 0:
                    tl.store(reference + slot, own, mask=real)
            left = hidden + row.to(tl.int64)[:, None] * hidden_stride
            sum_rest = tl.zeros((BLOCK_TOKENS,), dtype=tl.float32)
            sum_shifted = tl.zeros((BLOCK_TOKENS,), dtype=tl.float32)
            sum_products = tl.zeros((BLOCK_TOKENS,), dtype=tl.float32)
            for first in range(part * part_columns, min(part * part_columns + part_columns, vocab), BLOCK_VOCAB):
                columns = first + tl.arange(0, BLOCK_VOCAB)
                right = weight + tl.minimum(columns, vocab - 1).to(tl.int64)[None, :] * weight_stride
                a = tl.zeros((BLOCK_TOKENS, BLOCK_VOCAB), dtype=tl.float32)
                for start in range(0, dim, BLOCK_DIM):
                    k = start + tl.arange(0, BLOCK_DIM)
                    h = tl.load(left + k[None, :], mask=k[None, :] < dim, other=0.0)
                    w = tl.load(right + k[:, None], mask=k[:, None] < dim, other=0.0)
                    a = dot(h, w, a, PRECISION, INTERPRETED)
                if TOPS:
                    z, _ = shifted_logits(
                        a,
                        columns,
                        own,
                        bias,
                        vocab,
                        scale_log2,
                        decay_rate,
                        cap_log2,
                        HAS_BIAS,
                        HAS_CAP,
                        RECIPROCAL,
                    )
                    others = (columns < vocab)[None, :] & (columns[None, :] != label[:, None])
                    top = tl.maximum(top, tl.max(tl.where(others, z, LEFT_OUT), 1))
                else:
                    x, e, kept = exponentials(
                        a, first, tl.arange(0, BLOCK_VOCAB), label, own, True, bias, vocab,
                        scale_log2, decay_rate, cap_log2, HAS_BIAS, HAS_CAP, False, RECIPROCAL,
                    )  # fmt: skip
                    sum_rest += tl.sum(e, 1)
                    sum_shifted += tl.sum(e * x, 1)
                    if HAS_BIAS or HAS_CAP:
                        sum_products += tl.sum(kept * a, 1)
                    if STORE:
                        if first < stored:
                            target = exps + local[:, None] * exps_stride + columns[None, :]
                            tl.store(target, narrow(kept, exps.dtype.element_ty, INTERPRETED), mask=real[:, None])
            if TOPS:
                tl.store(at + (PARTS + part).to(tl.int64) * block_stride, top, mask=real)
            else:
                at += part.to(tl.int64) * block_stride
                tl.store(at, sum_rest, mask=real)
                tl.store(at + sum_stride, sum_shifted, mask=real)
                if HAS_BIAS or HAS_CAP:
                    tl.store(at + 2 * sum_stride, sum_products, mask=real)


def launch_rescue(
    hidden: Tensor,  # (rows, dim)
    weight: Tensor,  # (vocab, dim) the same dtype
    head: HeadMap,
    labels: Tensor,  # (rows,) int64 or int32
    layout: Layout,
    group: Group,
    reference: Tensor,  # (all slots,) float32, in units of log 2; written for flagged tokens
    exps: Tensor | None,  # (slots, columns) E of the first vocabulary rows; written for flagged tokens
    sums: Tensor,  # (2 or 3, blocks, tokens) float32, at least two blocks; overwritten for flagged tokens
    label_values: Tensor,  # (2, all slots) float64 of launch_label_logits
    statistics: Tensor,  # (4, all slots) float64; written for flagged tokens
    rest: Tensor,  # (all slots,) float32 R; written for flagged tokens
    flagged: Tensor,  # (token blocks,) int32 of launch_token_statistics
    config: LogitsConfig,
    *,
    token_offset: int = 0,
    tokens_bound: int | None = None,
) -> None:
    """Repeat the logits and statistics of the flagged tokens with their own reference."""
    vocab, dim = weight.shape
    tokens_bound = group.tokens_bound if tokens_bound is None else tokens_bound
    token_blocks = ceil_div(tokens_bound, ROWS.tokens)
    if token_blocks == 0:
        return
    # Powers of two, as many as rows of the table allow.
    blocks = ceil_div(vocab, RESCUE.vocab)
    parts = 1 << (min(RESCUE.parts, sums.shape[1] // 2, blocks).bit_length() - 1)
    stored = 0 if exps is None else exps.shape[1]
    for tops in (True, False):
        rescue_kernel[(min(RESCUE.lanes, token_blocks), parts)](
            hidden,
            weight,
            tensor_or(head.bias, hidden),
            labels,
            layout.token_row,
            layout.token_slot,
            layout.scored_start,
            layout.slot_start,
            flagged,
            rest,
            reference,
            tensor_or(exps, hidden),
            sums,
            group.first_sample,
            group.samples,
            token_offset,
            tokens_bound,
            token_blocks,
            hidden.stride(0),
            weight.stride(0),
            vocab,
            dim,
            ceil_div(blocks, parts) * RESCUE.vocab,
            stored,
            0 if exps is None else exps.stride(0),
            sums.stride(0),
            sums.stride(1),
            *HeadNumbers.of(head),
            HAS_BIAS=head.bias is not None,
            HAS_CAP=head.softcap is not None,
            TOPS=tops,
            STORE=exps is not None and not tops,
            PRECISION=config.precision(hidden.dtype),
            RECIPROCAL=RECIPROCAL,
            INTERPRETED=INTERPRETING,
            PARTS=parts,
            BLOCK_TOKENS=ROWS.tokens,
            BLOCK_VOCAB=RESCUE.vocab,
            BLOCK_DIM=RESCUE.depth(hidden.element_size()),
            BLOCK_FLAGS=RESCUE.flags,
            num_warps=RESCUE.warps,
            num_stages=RESCUE.stages,
            **LAUNCH_OPTIONS,
        )
    launch_token_statistics(
        head,
        layout,
        group,
        sums,
        reference,
        label_values,
        statistics,
        rest,
        flagged,
        blocks=parts,
        token_offset=token_offset,
        tokens_bound=tokens_bound,
        again=True,
    )
