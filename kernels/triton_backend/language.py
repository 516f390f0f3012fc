"""Shared parts of the kernels: availability of Triton, its interpreter, and operations that differ under it.

Triton reads ``TRITON_INTERPRET=1`` when a kernel is decorated, so it must be set before this package is imported. Two
operations differ under the interpreter; the constexpr ``INTERPRETED`` of every launch selects them. Its ``tl.dot``
multiplies the raw bits of bfloat16, so operands are cast to float32 first. Its cast to bfloat16 truncates, whereas the
hardware rounds to nearest even.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap

INTERPRETING = os.environ.get("TRITON_INTERPRET", "") not in ("", "0")
# Replaces −∞ in an excluded column: exp gives 0, and 0 · z is 0, whereas 0 · (−inf) is NaN.
LEFT_OUT = tl.constexpr(-1e30)
# Options of every launch: multiplications and additions are fused, whatever a release of Triton does by default.
LAUNCH_OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}
LOG2_E = math.log2(math.e)


@triton.jit
def dot(left, right, total, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr):  # (m, k), (k, n), (m, n) float32
    """Compute total + left · right on the tensor cores, in float32."""
    if INTERPRETED:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def narrow(x, dtype: tl.constexpr, INTERPRETED: tl.constexpr):  # float32
    """Cast to ``dtype``, rounding to nearest even (NaN stays NaN)."""
    if INTERPRETED:
        if dtype == tl.bfloat16:
            bits = x.to(tl.int32, bitcast=True)
            even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
            x = tl.where(x == x, even.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def halves(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # (ROWS, COLUMNS)
    """Left and right half of the columns; in the tensor cores' layout no value moves."""
    return tl.split(tl.permute(tl.reshape(x, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit
def share_of(x, part: tl.constexpr, SPLIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # (ROWS, COLUMNS)
    """Part number ``part`` of the columns, out of ``SPLIT`` (1, 2 or 4) equal parts."""
    if SPLIT == 1:
        share = x
    else:
        left, right = halves(x, ROWS, COLUMNS)
        if part < SPLIT // 2:
            share = left
        else:
            share = right
        if SPLIT == 4:
            left, right = halves(share, ROWS, COLUMNS // 2)
            if part % 2 == 0:
                share = left
            else:
                share = right
    return share


@triton.jit
def log1p(y):  # float64, y ≥ 0
    """log(1 + y), exact to the last digits for small y too."""
    one_more = 1.0 + y
    return tl.where(one_more == 1.0, y, tl.log(one_more) * (y / tl.where(one_more == 1.0, 1.0, one_more - 1.0)))


@triton.jit
def softplus(x):  # float64
    """log(1 + eˣ) with a small relative error for both signs; NaN stays NaN, and ∞ stays ∞ (a label masked by −∞)."""
    return tl.where(x > 0.0, x, 0.0) + log1p(tl.exp(-tl.abs(x))) + tl.where(x == x, 0.0, x)


class HeadNumbers(NamedTuple):
    """Constants of z = f(a) for the kernels, which compute logits in units of log 2.

    With x = a + bias:

        no soft-cap     z / log 2 = x · scale_log2
        soft-cap        decay = 2^(|x| · decay_rate) = exp(−2|logit_scale · x| / softcap)
                        z / log 2 = sign(x) · cap_log2 · (1 − decay) / (1 + decay)
                        f′ = slope_scale · decay / (1 + decay)²
    """

    scale_log2: float
    decay_rate: float
    cap_log2: float
    slope_scale: float

    @classmethod
    def of(cls, head: HeadMap) -> HeadNumbers:
        """Constants of a head."""
        scale, cap = head.logit_scale, 1.0 if head.softcap is None else head.softcap
        return cls(
            scale * LOG2_E, -2.0 * abs(scale) * LOG2_E / cap, math.copysign(cap * LOG2_E, scale), 4.0 * scale
        )  # fmt: skip


def element(dtype: torch.dtype) -> Any:
    """Name of a torch dtype in Triton."""
    return {
        torch.bfloat16: tl.bfloat16,
        torch.float16: tl.float16,
        torch.float32: tl.float32,
    }[dtype]


def tensor_or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """Argument for a pointer that the kernel does not read if the tensor is None."""
    return stand_in if tensor is None else tensor


class OnDevice:
    """Make the tensors' device the current one, on which Triton launches (no effect on the CPU)."""

    def __init__(self, device: torch.device) -> None:
        self._guard = torch.cuda.device(device) if device.type == "cuda" else None

    def __enter__(self) -> None:
        if self._guard is not None:
            self._guard.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._guard is not None:
            self._guard.__exit__(*error)
