"""Sum partial sums of tiles to sums of samples, in float64 and in a fixed order; compute ‖W‖² in the same way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import REDUCE, ceil_div


@triton.jit(do_not_specialize=["partials", "bounds", "out", "first", "items", "stride", "out_stride"])
def segment_sums_kernel(
    partials, bounds, out, first, items, stride, out_stride, BY_BOUNDS: tl.constexpr, BLOCK: tl.constexpr
):
    """out[first + i] += Σ of segment i. Grid: (segments,)."""
    segment = tl.program_id(0)
    if BY_BOUNDS:
        zero = tl.load(bounds + first)
        begin = (tl.load(bounds + first + segment) - zero).to(tl.int64) * items
        end = (tl.load(bounds + first + segment + 1) - zero).to(tl.int64) * items
    else:
        begin = segment.to(tl.int64) * stride
        end = begin + items
    total = tl.zeros((BLOCK,), dtype=tl.float64)
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(partials + at, mask=at < end, other=0.0).to(tl.float64)
    target = out + (first + segment) * out_stride
    tl.store(target, tl.load(target) + tl.sum(total, 0))


def launch_row_sums(
    partials: Tensor,  # (segments, items) float32, rows contiguous
    out: Tensor,  # (n,) float64 (any stride); out[first + i] += Σ partials[i]
    first: int,
) -> None:
    """Add the sum of each row to ``out``."""
    if partials.shape[0] == 0:
        return
    segment_sums_kernel[(partials.shape[0],)](
        partials,
        partials,
        out,
        first,
        partials.shape[1],
        partials.stride(0),
        out.stride(0),
        BY_BOUNDS=False,
        BLOCK=REDUCE.block,
        num_warps=REDUCE.warps,
    )


def launch_segment_sums(
    partials: Tensor,  # (items, parts) float32
    bounds: Tensor,  # (n + 1,) int32: segment i owns items bounds[i] − bounds[first] to bounds[i + 1] − bounds[first]
    out: Tensor,  # (n,) float64 (any stride)
    first: int,
    segments: int,
) -> None:
    """Add the sums of ``segments`` segments from ``first`` on to ``out``; bounds stay on the device."""
    if segments == 0:
        return
    segment_sums_kernel[(segments,)](
        partials,
        bounds,
        out,
        first,
        partials.shape[1],
        0,
        out.stride(0),
        BY_BOUNDS=True,
        BLOCK=REDUCE.block,
        num_warps=REDUCE.warps,
    )


@triton.jit
def squares_kernel(weight, partials, rows, dim, weight_stride, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Sum w² over a block of rows in float64."""
    v = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    total = tl.zeros((BLOCK_ROWS, BLOCK), dtype=tl.float64)
    for start in range(0, dim, BLOCK):
        k = start + tl.arange(0, BLOCK)
        mask = (v < rows)[:, None] & (k < dim)[None, :]
        w = tl.load(weight + v.to(tl.int64)[:, None] * weight_stride + k[None, :], mask=mask, other=0.0)
        w = w.to(tl.float64)
        total += w * w
    tl.store(partials + tl.program_id(0), tl.sum(total))


def squared_norm(
    weight: Tensor,  # (vocab, dim) bfloat16, float16 or float32, rows contiguous
) -> Tensor:
    """Compute ‖W‖²_F, a 0-dim float64 tensor on its device, in one pass over W without a host sync."""
    rows, dim = weight.shape
    blocks = ceil_div(rows, REDUCE.rows)
    partials = torch.empty(blocks, dtype=torch.float64, device=weight.device)
    squares_kernel[(blocks,)](
        weight,
        partials,
        rows,
        dim,
        weight.stride(0),
        BLOCK_ROWS=REDUCE.rows,
        BLOCK=REDUCE.width,
        num_warps=REDUCE.warps,
    )
    return partials.sum()
