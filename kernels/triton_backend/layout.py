"""Positions of the scored tokens: tables from ``labels`` and ``cu_seqlens`` on their device, without a host sync.

The scored tokens of a call are numbered (``token_row``: their rows of ``hidden``). Each also has a *slot*: the tokens
of the samples in order, with every sample starting at a multiple of ``align`` slots. So a step of the direct kernel
(``align`` slots) belongs to one sample, and its address needs no look-up. Slots between the end of a sample and the
start of the next are pads (row −1).

All shapes follow from the shapes of the arguments. So nothing is read back, and a captured CUDA graph works with the
values of each replay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.kernels.arguments import IGNORE_INDEX


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Tables of one call over M rows and B samples; at most S = M + B · (align − 1), rounded up, slots.

    Attributes:
        token_row: (M,) int32, row of hidden of each scored token; 0 past the last.
        token_slot: (M,) int32, its slot.
        slot_row: (S,) int32, row of hidden of each slot, −1 for pads.
        scored_start: (B + 1,) int32, number of the first scored token of each sample.
        slot_start: (B + 1,) int32, first slot of each sample.
        step_sample: (S / align + 1,) int32, sample of each step of ``align`` slots; B past the last.
        counts: (B,) int32, scored tokens.
        valid: () bool, whether the bounds run from 0 to M without decreasing.
        align: slots of a step.
    """

    token_row: Tensor
    token_slot: Tensor
    slot_row: Tensor
    scored_start: Tensor
    slot_start: Tensor
    step_sample: Tensor
    counts: Tensor
    valid: Tensor
    align: int


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive samples that are processed together, with bounds known on the host.

    Attributes:
        first_sample: number of the first sample.
        samples: number of samples.
        tokens_bound: upper bound of the scored tokens.
        slots_bound: upper bound of the slots, a multiple of the alignment.
        lengths: upper bounds of the scored tokens of each sample, or None if the host does not know them.
    """

    first_sample: int
    samples: int
    tokens_bound: int
    slots_bound: int
    lengths: tuple[int, ...] | None = None


def make_layout(
    labels: Tensor,  # (rows,) int64 or int32, −100 is not scored
    bounds: Tensor,  # (samples + 1,) int64 on the same device
    align: int,
) -> Layout:
    """Build the tables; invalid bounds give ``valid`` False and tables that stay inside memory."""
    rows, samples, device = labels.shape[0], bounds.shape[0] - 1, labels.device
    valid = (bounds[0] == 0) & (bounds[-1] == rows) & (bounds.diff() >= 0).all()
    bounds = bounds.clamp(0, rows).cummax(0).values
    bounds = torch.cat([bounds.new_zeros(1), bounds[1:-1], bounds.new_full((1,), rows)])
    keep = labels != IGNORE_INDEX
    before = torch.cat([bounds.new_zeros(1), keep.cumsum(0)])  # scored rows before each row
    scored_start = before[bounds]
    counts = scored_start.diff()
    padded = (counts + (align - 1)) // align * align
    slot_start = torch.cat([bounds.new_zeros(1), padded.cumsum(0)])
    row = torch.arange(rows, device=device)
    sample = (torch.searchsorted(bounds, row, right=True) - 1).clamp(0, samples - 1)
    slot = slot_start[sample] + before[:-1] - scored_start[sample]
    slots = slots_bound(rows, samples, align)
    steps = torch.arange(slots // align + 1, device=device) * align
    step_sample = torch.searchsorted(slot_start[1:], steps, right=True)
    return Layout(
        token_row=_placed(row, before[:-1], keep, rows, 0),
        token_slot=_placed(slot, before[:-1], keep, rows, 0),
        slot_row=_placed(row, slot, keep, slots, -1),
        scored_start=scored_start.int(),
        slot_start=slot_start.int(),
        step_sample=step_sample.int(),
        counts=counts.int(),
        valid=valid,
        align=align,
    )


def slots_bound(tokens: int, samples: int, align: int) -> int:
    """Upper bound of the slots for ``tokens`` scored tokens of ``samples`` samples, a multiple of ``align``."""
    return (tokens + min(tokens, samples) * (align - 1) + align - 1) // align * align


def _placed(values: Tensor, places: Tensor, keep: Tensor, size: int, default: int) -> Tensor:
    """(size,) int32 with values[i] at places[i] where keep[i], ``default`` elsewhere."""
    # Other values go to one place past the end, which is cut off.
    out = torch.full((size + 1,), default, dtype=torch.int32, device=values.device)
    return out.scatter_(0, torch.where(keep, places, size), values.int())[:size]
