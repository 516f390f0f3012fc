"""Copy hidden states to their slots, times the share of their token, so that the direct kernel needs no look-ups.

    packed_t = share_t h_t      rounded once, to the dtype of the signals (``dithered``)

Pads become zeros (a NaN of another sample must not be multiplied by a zero signal). See ``rows.py`` for ``share``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import PACK, ceil_div
from donod_fast.kernels.triton_backend.language import LAUNCH_OPTIONS, dithered
from donod_fast.kernels.triton_backend.layout import Group, Layout


@triton.jit(do_not_specialize=["first_sample", "samples"])
def pack_kernel(
    hidden,
    share,
    slot_row,
    slot_start,
    packed,
    first_sample,
    samples,
    hidden_stride,
    dim,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """One block of slots × dim. Grid: (slot blocks, dim blocks)."""
    begin = tl.load(slot_start + first_sample)
    end = tl.load(slot_start + first_sample + samples)
    local = tl.program_id(0) * BLOCK_SLOTS + tl.arange(0, BLOCK_SLOTS)
    inside = begin + local < end
    if begin + tl.program_id(0) * BLOCK_SLOTS >= end:
        return
    row = tl.load(slot_row + begin + local, mask=inside, other=-1)
    k = tl.program_id(1) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    mask = (row >= 0)[:, None] & (k < dim)[None, :]
    h = tl.load(hidden + row.to(tl.int64)[:, None] * hidden_stride + k[None, :], mask=mask, other=0.0)
    c = tl.load(share + begin + local, mask=row >= 0, other=0.0)
    h = dithered(h.to(tl.float32) * c[:, None], local, k, packed.dtype.element_ty)
    target = packed + local.to(tl.int64)[:, None] * dim + k[None, :]
    tl.store(target, h, mask=inside[:, None] & (k < dim)[None, :])


def launch_pack(
    hidden: Tensor,  # (rows, dim)
    share: Tensor,  # (all slots,) float32 of launch_sample_sums
    layout: Layout,
    group: Group,
    packed: Tensor,  # (slots, dim) written
) -> None:
    """Fill ``packed`` for the group's slots."""
    dim = hidden.shape[1]
    grid = (ceil_div(group.slots_bound, PACK.slots), ceil_div(dim, PACK.columns))
    if 0 in grid:
        return
    pack_kernel[grid](
        hidden,
        share,
        layout.slot_row,
        layout.slot_start,
        packed,
        group.first_sample,
        group.samples,
        hidden.stride(0),
        dim,
        BLOCK_SLOTS=PACK.slots,
        BLOCK_DIM=PACK.columns,
        num_warps=PACK.warps,
        **LAUNCH_OPTIONS,
    )
