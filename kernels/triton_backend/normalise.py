"""Turn stored exponentials into the error signals of the direct kernel, in place.

    D_tv = r_t · factor_tJ · E_tv  (v ≠ y),   D_ty = −r_t · f′(a_y),   0 in pads and past the vocabulary

with r the token's magnitude relative to its sample's largest (``rows.py``), so that the gradient is
s · Σ_t D_t h_tᵀ. The float32 product is rounded once, to the type of E, which is harmless. This pass
reads and writes E once; the Gram kernel does not need it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import NORMALISE, ceil_div
from donod_fast.kernels.triton_backend.language import INTERPRETING, narrow, tensor_or
from donod_fast.kernels.triton_backend.layout import Group, Layout


@triton.jit(do_not_specialize=["first_sample", "samples", "first_tile"])
def normalise_kernel(
    exps,
    factors,
    relative,
    label_slope,
    labels,
    slot_row,
    slot_start,
    first_sample,
    samples,
    first_tile,
    vocab,
    columns_stored,
    exps_stride,
    factor_stride,
    HAS_FACTORS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    INTERPRETED: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
):
    """One block of slots × columns (inside one tile of the logits kernel)."""
    begin = tl.load(slot_start + first_sample)
    end = tl.load(slot_start + first_sample + samples)
    local = tl.program_id(0) * BLOCK_SLOTS + tl.arange(0, BLOCK_SLOTS)
    slots = begin + local
    if begin + tl.program_id(0) * BLOCK_SLOTS >= end:
        return
    inside = slots < end
    row = tl.load(slot_row + slots, mask=inside, other=-1)
    real = row >= 0
    label = tl.load(labels + row, mask=real, other=-1)
    share = tl.load(relative + slots, mask=real, other=0.0)
    first_column = first_tile * TILE
    place = tl.program_id(1) * BLOCK_VOCAB + tl.arange(0, BLOCK_VOCAB)
    columns = first_column + place
    mask = inside[:, None] & (place < columns_stored)[None, :]
    at = exps + local.to(tl.int64)[:, None] * exps_stride + place[None, :]
    e = tl.load(at, mask=mask & real[:, None], other=0.0).to(tl.float32)
    weight = share
    if HAS_FACTORS:
        tile = (first_column + tl.program_id(1) * BLOCK_VOCAB) // TILE
        weight *= tl.load(factors + tile.to(tl.int64) * factor_stride + local, mask=real, other=0.0)
    d = e * weight[:, None]
    at_label = share
    if HAS_CAP:
        at_label *= tl.load(label_slope + slots, mask=real, other=0.0)
    d = tl.where(columns[None, :] == label[:, None], -at_label[:, None], d)
    d = tl.where(real[:, None] & (columns < vocab)[None, :], d, 0.0)
    tl.store(at, narrow(d, exps.dtype.element_ty, INTERPRETED), mask=mask)


def launch_normalise(
    exps: Tensor,  # (slots, columns) E; becomes D
    factors: Tensor | None,  # (vocab tiles, slots) float32, or None where E is normalised already
    relative: Tensor,  # (all slots,) float32
    label_slope: Tensor | None,  # (all slots,) float32
    labels: Tensor,  # (rows,)
    layout: Layout,
    group: Group,
    *,
    vocab: int,
    first_column: int,
    tile: int,
) -> None:
    """Overwrite E by D for the group's slots and the vocabulary rows from ``first_column`` on."""
    config = NORMALISE
    width = min(config.vocab, tile)
    grid = (ceil_div(group.slots_bound, config.slots), ceil_div(exps.shape[1], width))
    if 0 in grid:
        return
    normalise_kernel[grid](
        exps,
        tensor_or(factors, relative),
        relative,
        tensor_or(label_slope, relative),
        labels,
        layout.slot_row,
        layout.slot_start,
        group.first_sample,
        group.samples,
        first_column // tile,
        vocab,
        exps.shape[1],
        exps.stride(0),
        0 if factors is None else factors.stride(0),
        HAS_FACTORS=factors is not None,
        HAS_CAP=label_slope is not None,
        INTERPRETED=INTERPRETING,
        TILE=tile,
        BLOCK_SLOTS=config.slots,
        BLOCK_VOCAB=width,
        num_warps=config.warps,
    )
