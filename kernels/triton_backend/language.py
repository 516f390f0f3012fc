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
# How ``reciprocal`` computes.
RECIPROCAL = "divide" if INTERPRETING else "gcn" if torch.version.hip else "ptx"
# Options of every launch: multiplications and additions are fused, whatever a release of Triton does by default.
LAUNCH_OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}
# Replaces −∞ in an excluded column: exp gives 0, and 0 · z is 0, whereas 0 · (−inf) is NaN.
LEFT_OUT = tl.constexpr(-1e30)
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
def reciprocal(x, HOW: tl.constexpr):  # float32, |x| from 2⁻¹²⁶ to 2¹²⁶
    """1 / x in one instruction, to 1 ulp; a division takes about ten more to cover subnormal numbers.

    A subnormal x counts as 0, and the result is 0 past 2¹²⁶.
    """
    if HOW == "ptx":
        y = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    elif HOW == "gcn":
        y = tl.inline_asm_elementwise("v_rcp_f32 $0, $1", "=v,v", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = 1.0 / x
    return y


@triton.jit
def exp2(x, HOW: tl.constexpr):  # float32
    """2^x in one instruction, to 2 ulp; 0 below 2⁻¹²⁶ (the compiler's own scales subnormal results around it)."""
    if HOW == "ptx":
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    elif HOW == "gcn":
        y = tl.inline_asm_elementwise("v_exp_f32 $0, $1", "=v,v", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = tl.exp2(x)
    return y


@triton.jit
def widen(x, HOW: tl.constexpr):  # bf16/fp16/fp32
    """Cast to float32; two bfloat16 of a register in two instructions, where the compiler's cast takes three."""
    if HOW == "ptx" and x.dtype == tl.bfloat16:
        y = tl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=r,=r,r", [x], dtype=tl.float32, is_pure=True, pack=2
        )
    else:
        y = x.to(tl.float32)
    return y


@triton.jit
def _add_both(a, b, c, d):
    return a + c, b + d


@triton.jit
def two_sums(x, y, INTERPRETED: tl.constexpr):  # of the same shape
    """Sums of all elements of x and of y, with one exchange between the warps instead of two."""
    if INTERPRETED:
        first, second = tl.sum(x), tl.sum(y)
    else:
        first, second = tl.reduce((x, y), None, _add_both)
    return first, second


@triton.jit
def dithered(x, row, k, dtype: tl.constexpr):  # (rows, dimensions) float32
    """Cast to ``dtype``; to bfloat16 up or down by a fixed pattern over rows (modulo 16) and dimensions k.

    Values of bfloat16 times one factor are not rounded at random: a factor just above 1 is lost, for all of them. The
    pattern's mean is that of x: its thresholds are spread evenly (multiples of the golden ratio, and of another number,
    modulo 1).
    """
    if dtype == tl.bfloat16:
        threshold = (k[None, :] * 40503 + (row & 15).to(tl.int32)[:, None] * 24157) & 0xFFFF
        bits = (x.to(tl.int32, bitcast=True) + threshold) & -0x10000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def halves(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # (ROWS, COLUMNS)
    """Left and right half of the columns; in the tensor cores' layout no value moves."""
    return tl.split(tl.permute(tl.reshape(x, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit
def share_of(x, part: tl.constexpr, SPLIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # (ROWS, COLUMNS)
    """Part number ``part`` of the columns, out of ``SPLIT`` (1, 2, 4 or 8) equal parts."""
    if SPLIT == 1:
        share = x
    else:
        left, right = halves(x, ROWS, COLUMNS)
        if part < SPLIT // 2:
            share = share_of(left, part, SPLIT // 2, ROWS, COLUMNS // 2)
        else:
            share = share_of(right, part - SPLIT // 2, SPLIT // 2, ROWS, COLUMNS // 2)
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
                        f′ = 4 logit_scale · decay / (1 + decay)²
    """

    scale_log2: float
    decay_rate: float
    cap_log2: float

    @classmethod
    def of(cls, head: HeadMap) -> HeadNumbers:
        """Constants of a head."""
        scale, cap = head.logit_scale, 1.0 if head.softcap is None else head.softcap
        return cls(
            scale * LOG2_E, -2.0 * abs(scale) * LOG2_E / cap, math.copysign(cap * LOG2_E, scale)
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
