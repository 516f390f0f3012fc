"""Complete the exponentials of the logits kernel to the error signals of the direct kernel.

    E_ty = −R_t φ_y     the label's entry (``rows.py``), rounded to the type of E as the others are
    E_t  = 0            in the rows of pads

The direct kernel multiplies E by share_t h_t. (A factor that compensates the rounding of the label's entry would scale
all other entries of the token by up to 2⁻⁹: AdamW's update weighs every row of the vocabulary alike, so NOD would be
off by as much. The label's entry alone is one row of many.)
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import ENTRIES, ceil_div
from donod_fast.kernels.triton_backend.language import INTERPRETING, LAUNCH_OPTIONS, narrow
from donod_fast.kernels.triton_backend.layout import Group, Layout


@triton.jit(do_not_specialize=["first_sample", "samples", "first_column"])
def label_entries_kernel(
    exps,
    label_signal,
    labels,
    slot_row,
    slot_start,
    first_sample,
    samples,
    first_column,
    columns_stored,
    exps_stride,
    CLEAR: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Entries of a block of slots; with ``CLEAR`` also zeros in pads. Grid: (slot blocks,)."""
    begin = tl.load(slot_start + first_sample)
    end = tl.load(slot_start + first_sample + samples)
    local = tl.program_id(0) * BLOCK_SLOTS + tl.arange(0, BLOCK_SLOTS)
    if begin + tl.program_id(0) * BLOCK_SLOTS >= end:
        return
    slots = begin + local
    inside = slots < end
    row = tl.load(slot_row + slots, mask=inside, other=0)
    real = inside & (row >= 0)
    # 32 bits are enough: the signals of a label outside the vocabulary are NaN.
    label = tl.load(labels + row, mask=real, other=-1).to(tl.int32) - first_column
    signal = tl.load(label_signal + slots, mask=real, other=0.0)
    entry = narrow(-signal, exps.dtype.element_ty, INTERPRETED)
    rows = exps + local.to(tl.int64) * exps_stride
    tl.store(rows + label, entry, mask=real & (label >= 0) & (label < columns_stored))
    if CLEAR:
        pads = inside & (row < 0)
        if tl.sum(pads.to(tl.int32), 0) > 0:
            nothing = tl.zeros((BLOCK_SLOTS, BLOCK_COLUMNS), dtype=exps.dtype.element_ty)
            for start in range(0, columns_stored, BLOCK_COLUMNS):
                place = start + tl.arange(0, BLOCK_COLUMNS)
                mask = pads[:, None] & (place < columns_stored)[None, :]
                tl.store(rows[:, None] + place[None, :], nothing, mask=mask)


def launch_label_entries(
    exps: Tensor,  # (slots, columns) E of launch_logits, completed
    label_signal: Tensor,  # (all slots,) float32 of launch_sample_sums
    labels: Tensor,  # (rows,) int64 or int32
    layout: Layout,
    group: Group,
    *,
    first_column: int,
    clear: bool,
) -> None:
    """Write the label's entries; with ``clear`` also zeros in the rows of pads, which stay."""
    grid = (ceil_div(group.slots_bound, ENTRIES.slots),)
    if grid[0] == 0:
        return
    label_entries_kernel[grid](
        exps,
        label_signal,
        labels,
        layout.slot_row,
        layout.slot_start,
        group.first_sample,
        group.samples,
        first_column,
        exps.shape[1],
        exps.stride(0),
        CLEAR=clear,
        INTERPRETED=INTERPRETING,
        BLOCK_SLOTS=ENTRIES.slots,
        BLOCK_COLUMNS=ENTRIES.columns,
        num_warps=ENTRIES.warps,
        **LAUNCH_OPTIONS,
    )
