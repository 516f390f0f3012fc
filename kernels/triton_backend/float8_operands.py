"""Round error signals and hidden states to float8 with scales, and store them with the slots contiguous.

The formulas are in ``float8.py``, which multiplies them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.arena import Need
from donod_fast.kernels.triton_backend.configs import QUANTISE, Float8Config, ceil_div
from donod_fast.kernels.triton_backend.language import INTERPRETING, LAUNCH_OPTIONS
from donod_fast.kernels.triton_backend.layout import Group, Layout

# Below this, 1 / scale would overflow; such a row of g is below any eps.
_TINY = tl.constexpr(1e-35)


@triton.jit
def to_float8(x, dtype: tl.constexpr, INTERPRETED: tl.constexpr):  # float32, |x| ≤ the largest finite value, or NaN
    """Cast to float8, rounding to nearest even (NaN stays NaN)."""
    if INTERPRETED:
        # The interpreter's cast rounds wrongly and does not know NaN. It is exact for float8 values, and so is the sum
        # below 2⁻⁶, where they have a distance of 2⁻⁹.
        even = x.to(tl.int32, bitcast=True)
        even = (even + 0x7FFFF + ((even >> 20) & 1)) & -0x100000
        small = (x + 1.5 * 2.0**14) - 1.5 * 2.0**14
        bits = tl.where(tl.abs(x) < 2.0**-6, small, even.to(tl.float32, bitcast=True)).to(dtype)
        return tl.where(x == x, bits.to(tl.uint8, bitcast=True), 0x7F).to(tl.uint8).to(dtype, bitcast=True)
    return x.to(dtype)


@triton.jit(do_not_specialize=["base_sample", "first_sample", "samples"])
def states_kernel(
    hidden,
    share,
    slot_row,
    slot_start,
    states,
    state_scale,
    base_sample,
    first_sample,
    samples,
    hidden_stride,
    states_stride,
    dim,
    padded_dim,
    LIMIT: tl.constexpr,
    ALIGN: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Compute b and H' of a block of slots. Grid: (slot blocks,)."""
    base = tl.load(slot_start + base_sample)
    begin = tl.load(slot_start + first_sample)
    end = tl.load(slot_start + first_sample + samples)
    if begin + tl.program_id(0) * BLOCK_SLOTS >= end:
        return
    # Samples begin at multiples of ALIGN: slots are stored 16 at a time.
    places = tl.multiple_of(begin - base + tl.program_id(0) * BLOCK_SLOTS, ALIGN) + tl.arange(0, BLOCK_SLOTS)
    inside = places < tl.multiple_of(end - base, ALIGN)
    slots = base + places
    row = tl.load(slot_row + slots, mask=inside, other=-1)
    real = row >= 0
    c = tl.load(share + slots, mask=real, other=0.0)
    at = hidden + row.to(tl.int64)[:, None] * hidden_stride
    top = tl.zeros((BLOCK_SLOTS,), dtype=tl.float32)
    for first in range(0, dim, BLOCK_DIM):
        k = first + tl.arange(0, BLOCK_DIM)
        h = tl.load(at + k[None, :], mask=real[:, None] & (k < dim)[None, :], other=0.0).to(tl.float32)
        top = tl.maximum(top, tl.max(tl.abs(h * c[:, None]), 1))
    live = top > _TINY
    tl.store(state_scale + places, tl.where(live, top / LIMIT, 0.0), mask=inside)
    factor = tl.where(live, 1.0 / (top / LIMIT), 0.0)
    for first in range(0, padded_dim, BLOCK_DIM):
        k = first + tl.arange(0, BLOCK_DIM)
        h = tl.load(at + k[None, :], mask=real[:, None] & (k < dim)[None, :], other=0.0).to(tl.float32)
        scaled = to_float8(clamped(h * c[:, None] * factor[:, None], LIMIT), states.dtype.element_ty, INTERPRETED)
        target = states + k.to(tl.int64)[None, :] * states_stride + places[:, None]
        tl.store(target, scaled, mask=inside[:, None] & (k < padded_dim)[None, :])


@triton.jit
def clamped(x, LIMIT: tl.constexpr):
    """Limit to the largest float8, which rounding of a factor may exceed by a digit; NaN stays NaN."""
    return tl.where(x > LIMIT, LIMIT, tl.where(x < -LIMIT, -LIMIT, x))


@triton.jit(do_not_specialize=["base_sample", "first_sample"])
def signals_kernel(
    signals,
    state_scale,
    slot_start,
    quantised,
    row_scale,
    base_sample,
    first_sample,
    columns,
    signals_stride,
    quantised_stride,
    LIMIT: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Compute a and D' of a sample and a block of columns. Grid: (samples, column blocks)."""
    base = tl.load(slot_start + base_sample)
    # A multiple of the step, of which BLOCK_SLOTS is a divisor: slots are stored 16 at a time.
    begin = tl.multiple_of(tl.load(slot_start + first_sample + tl.program_id(0)) - base, BLOCK_SLOTS)
    end = tl.load(slot_start + first_sample + tl.program_id(0) + 1) - base
    v = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    there = v < columns
    top = tl.zeros((BLOCK_COLUMNS,), dtype=tl.float32)
    for first in range(begin, end, BLOCK_SLOTS):
        slots = first + tl.arange(0, BLOCK_SLOTS)
        b = tl.load(state_scale + slots)
        at = signals + slots.to(tl.int64)[:, None] * signals_stride + v[None, :]
        d = tl.load(at, mask=there[None, :], other=0.0).to(tl.float32)
        top = tl.maximum(top, tl.max(tl.abs(d * b[:, None]), 0))
    live = top > _TINY
    tl.store(row_scale + tl.program_id(0).to(tl.int64) * columns + v, tl.where(live, top / LIMIT, 0.0), mask=there)
    factor = tl.where(live, 1.0 / (top / LIMIT), 0.0)
    for first in range(begin, end, BLOCK_SLOTS):
        slots = first + tl.arange(0, BLOCK_SLOTS)
        b = tl.load(state_scale + slots)
        at = signals + slots.to(tl.int64)[:, None] * signals_stride + v[None, :]
        d = tl.load(at, mask=there[None, :], other=0.0).to(tl.float32)
        scaled = clamped(d * b[:, None] * factor[None, :], LIMIT)
        target = quantised + v.to(tl.int64)[None, :] * quantised_stride + slots[:, None]
        tl.store(target, to_float8(scaled, quantised.dtype.element_ty, INTERPRETED), mask=there[None, :])


def storage_type(device: torch.device) -> torch.dtype:
    """The e4m3 format of a device: that of gfx942 has another bias and no negative zero."""
    return torch.float8_e4m3fnuz if device.type == "cuda" and torch.version.hip else torch.float8_e4m3fn


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """Float8 operands of a group, slots from its first sample's on.

    Attributes:
        signals: (columns, slots) D'ᵀ.
        states: (dim in whole tiles, slots) H'ᵀ.
        state_scale: (slots,) float32 b.
    """

    signals: Tensor
    states: Tensor
    state_scale: Tensor


def operand_needs(columns: int, dim: int, slots: int, config: Float8Config, device: torch.device) -> dict[str, Need]:
    """Sizes of the operands of a group, by the names of ``Operands``."""
    dtype = storage_type(device)
    return {
        "signals": Need((columns, slots), dtype),
        "states": Need((ceil_div(dim, config.dim) * config.dim, slots), dtype),
        "state_scale": Need((slots,), torch.float32),
    }


def launch_states(
    hidden: Tensor,  # (rows, dim)
    share: Tensor,  # (all slots,) float32
    layout: Layout,
    some: Group,  # the samples of this launch
    operands: Operands,  # states and state_scale are written
    *,
    base_sample: int,  # the group's first
) -> None:
    """Round hidden states times the share of their token."""
    if some.slots_bound == 0:
        return
    states = operands.states
    states_kernel[(ceil_div(some.slots_bound, QUANTISE.slots),)](
        hidden,
        share,
        layout.slot_row,
        layout.slot_start,
        states,
        operands.state_scale,
        base_sample,
        some.first_sample,
        some.samples,
        hidden.stride(0),
        states.stride(0),
        hidden.shape[1],
        states.shape[0],
        LIMIT=torch.finfo(states.dtype).max,
        ALIGN=layout.align,
        INTERPRETED=INTERPRETING,
        BLOCK_SLOTS=QUANTISE.slots,
        BLOCK_DIM=QUANTISE.columns,
        num_warps=QUANTISE.warps,
        **LAUNCH_OPTIONS,
    )


def launch_signals(
    signals: Tensor,  # (slots, columns) D
    layout: Layout,
    some: Group,  # the samples of this launch
    operands: Operands,  # signals are written
    row_scale: Tensor,  # (samples, columns) float32 a, written
    *,
    base_sample: int,  # the group's first
) -> None:
    """Round error signals, after the states."""
    columns = signals.shape[1]
    # A sample's slots are whole steps; a larger block would run into the next sample's.
    slots = min(QUANTISE.slots, layout.align)
    signals_kernel[(some.samples, ceil_div(columns, QUANTISE.columns))](
        signals,
        operands.state_scale,
        layout.slot_start,
        operands.signals,
        row_scale,
        base_sample,
        some.first_sample,
        columns,
        signals.stride(0),
        operands.signals.stride(0),
        LIMIT=torch.finfo(operands.signals.dtype).max,
        INTERPRETED=INTERPRETING,
        BLOCK_SLOTS=slots,
        BLOCK_COLUMNS=QUANTISE.columns,
        num_warps=QUANTISE.warps,
        **LAUNCH_OPTIONS,
    )
