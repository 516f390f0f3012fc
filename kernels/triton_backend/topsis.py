"""TOPSIS over two columns on the device: two passes, no host sync (the mathematics is in ``kernels/topsis.py``).

For each block of samples the first kernel computes max |x|, Σ (x / max|x|)², min, max and Σ |x / max|x|| of DON and of
NOD over the samples that have both. The values of the blocks are combined in order. The second kernel is elementwise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.language import INTERPRETING, OnDevice

BLOCK = 1024


@triton.jit
def block_constants(x, scored, target):
    """Store scale, squares relative to it, minimum, maximum and absolutes relative to scale in target[0 … 4]."""
    infinity = float("inf")
    scale = tl.max(tl.where(scored, tl.abs(x), 0.0))
    relative = tl.where(scored, x, 0.0) / tl.where(scale > 0.0, scale, 1.0)
    tl.store(target, scale)
    tl.store(target + 1, tl.sum(relative * relative))
    tl.store(target + 2, tl.min(tl.where(scored, x, infinity)))
    tl.store(target + 3, tl.max(tl.where(scored, x, -infinity)))
    tl.store(target + 4, tl.sum(tl.abs(relative)))


@triton.jit
def constants_kernel(don_column, nod_column, column_constants, n, BLOCK: tl.constexpr):
    """Constants of both columns over one block: (blocks, 2, 5) float64. Grid: (blocks,)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    don = tl.load(don_column + at, mask=at < n, other=float("nan"))
    nod = tl.load(nod_column + at, mask=at < n, other=float("nan"))
    scored = (don == don) & (nod == nod)
    target = column_constants + tl.program_id(0) * 10
    block_constants(don, scored, target)
    block_constants(nod, scored, target + 5)


@triton.jit
def gap(x, bound, size):
    """Compute (x − bound) / (size[0] · size[1]), the difference first, of halves, so that it cannot overflow."""
    return (x / 2 - bound / 2) / tl.load(size) / tl.load(size + 1) * 2


@triton.jit
def length(x, y):
    """Compute √(x² + y²) without overflow or underflow."""
    big = tl.maximum(tl.abs(x), tl.abs(y))
    small = tl.minimum(tl.abs(x), tl.abs(y))
    ratio = small / tl.where(big == 0.0, 1.0, big)
    return big * tl.sqrt(1.0 + ratio * ratio)


@triton.jit
def closeness_kernel(don_column, nod_column, bounds, out_column, n, don_weight, nod_weight, BLOCK: tl.constexpr):
    """Closeness of one block of samples; NaN if a column is NaN. Grid: (blocks,).

    ``bounds`` is (2, 4) float64: minimum, maximum and the two factors of the size, for DON and NOD.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    don = tl.load(don_column + at, mask=at < n, other=float("nan"))
    nod = tl.load(nod_column + at, mask=at < n, other=float("nan"))
    nod_bounds = bounds + 4
    to_ideal = length(
        gap(don, tl.load(bounds + 1), bounds + 2) * don_weight,
        gap(nod, tl.load(nod_bounds), nod_bounds + 2) * nod_weight,
    )
    to_worst = length(
        gap(don, tl.load(bounds), bounds + 2) * don_weight,
        gap(nod, tl.load(nod_bounds + 1), nod_bounds + 2) * nod_weight,
    )
    total = to_ideal + to_worst
    closeness = tl.where(total == 0.0, 0.5, to_worst / tl.where(total == 0.0, 1.0, total))
    missing = (don - don) + (nod - nod)  # 0, or NaN, which maxima ignore
    tl.store(out_column + at, closeness + missing, mask=at < n)


def supports(don: Tensor, nod: Tensor) -> str | None:
    """Reason why the kernels do not support two columns, or None."""
    if don.device.type != "cuda" and not INTERPRETING:
        return f"the columns are on {don.device}"
    if don.dtype != torch.float64 or not (don.is_contiguous() and nod.is_contiguous()):
        return "the columns must be contiguous float64"
    return None


def launch_constants(
    don: Tensor,  # (n,) float64, NaN where not scored, n >= 1
    nod: Tensor,  # (n,) float64, as don
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scale, squares, minimum, maximum and absolutes of both columns, (2,) float64 each."""
    n = don.shape[0]
    blocks = triton.cdiv(n, BLOCK)
    constants = torch.empty((blocks, 2, 5), dtype=torch.float64, device=don.device)
    with OnDevice(don.device):
        constants_kernel[(blocks,)](don, nod, constants, n, BLOCK=BLOCK, num_warps=4)
    scale = constants[:, :, 0].amax(0)
    shares = constants[:, :, 0] / torch.where(scale == 0.0, 1.0, scale)
    squares = (constants[:, :, 1] * shares.square()).sum(0)
    absolutes = (constants[:, :, 4] * shares).sum(0)
    return scale, squares, constants[:, :, 2].amin(0), constants[:, :, 3].amax(0), absolutes


def launch_closeness(
    don: Tensor,  # (n,) float64, NaN where not scored, n >= 1
    nod: Tensor,  # (n,) float64, as don
    bounds: Tensor,  # (2, 4) float64: minimum, maximum and the two factors of the size
    weights: tuple[float, float],  # normalised to a sum of 1
) -> Tensor:
    """Closeness, (n,) float64."""
    n = don.shape[0]
    out = torch.empty_like(don)
    with OnDevice(don.device):
        grid = (triton.cdiv(n, BLOCK),)
        closeness_kernel[grid](don, nod, bounds, out, n, weights[0], weights[1], BLOCK=BLOCK, num_warps=4)
    return out
