"""Gradient products in float8 (e4m3) on request: which calls have them, and the same roundings in plain PyTorch.

``triton_backend/float8.py`` has the formulas and the kernels. Here the operands are rounded to the same float8 values
and multiplied in float32. It is slower than without rounding, and there to measure the errors without a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from donod_fast.kernels.updates import AdamW, Sign, Update

PRECISIONS = ("full", "float8")

LEAST_TOKENS = 400
"""Samples with fewer rows than this stay in the precision of ``"full"``: their time is not that of the product."""

SMALL_HEAD = 1 << 23
"""Fewest elements of W: smaller heads are multiplied in float32, because single signs of U count there."""

ERROR_LIMIT = 1e-3
"""Largest error of DON and NOD over NOD that ``donod-fast check`` accepts."""

_FORMAT = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FORMAT).max
# The reciprocal of a smaller scale would overflow; what it scales is below any eps.
_TINY = 1e-35


def why_not_float8(
    weight: Tensor,  # (vocab, dim)
    update: Update,
    storage_dtype: torch.dtype | None,
    backend: str,
) -> str | None:
    """Reason why there are no float8 products for this output layer, update and backend, or None."""
    if isinstance(update, AdamW) and update.state is not None:
        return "AdamW with a given state has no float8 product"
    if not isinstance(update, (AdamW, Sign)):
        return f"update {update.name!r} is linear in the gradient and needs no gradient product"
    if storage_dtype is not None:
        return "a rounded step (storage_dtype) would hide differences as small as those of float8"
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return f"it is for bfloat16 and float16, and the output layer is {str(weight.dtype)[6:]}"
    if weight.numel() < SMALL_HEAD:
        return f"an output layer of {weight.numel():,} elements is multiplied in float32; {SMALL_HEAD:,} are needed"
    if weight.shape[1] % 16:
        return f"rows of {weight.shape[1]} elements are unaligned; a multiple of 16 is needed"
    if backend == "inductor":
        return "backend 'inductor' has no float8 product; use 'auto', 'triton' or 'torch'"
    if backend == "torch" or (backend == "auto" and weight.device.type == "cpu"):
        return None
    try:
        from donod_fast.kernels.triton_backend.float8 import supports
    except ImportError as error:
        return f"Triton cannot be imported ({error}); backend 'torch' computes the same values slowly"
    return supports(weight.device)


def is_long(rows: int) -> bool:
    """Whether a sample of so many rows is multiplied in float8."""
    return rows >= LEAST_TOKENS


def rounded_states(states: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens, dim) states over their scale, rounded to float8 values in the dtype of the states, and (tokens,) scales.

    NaN stays NaN.
    """
    scale = states.abs().nan_to_num(0.0, torch.inf).amax(1) / _LARGEST
    return rounded(states * _inverse(scale).unsqueeze(1)), scale


def row_scales(
    signals: Tensor,  # (tokens, rows) D
    scale: Tensor,  # (tokens,) of rounded_states
) -> Tensor:
    """(rows,) scales of the vocabulary rows."""
    return (signals * scale.unsqueeze(1)).abs().nan_to_num(0.0, torch.inf).amax(0) / _LARGEST


def add_product(
    total: Tensor,  # (rows, dim) changed in place
    signals: Tensor,  # (tokens, rows) D
    states: tuple[Tensor, Tensor],  # of rounded_states
    row_scale: Tensor,  # (rows,) of row_scales, over all tokens of the sample
) -> None:
    """Add Dᵀ times states to ``total``, with both rounded to float8."""
    scaled = rounded(signals * states[1].unsqueeze(1) * _inverse(row_scale))
    total.addcmul_(scaled.t() @ states[0], row_scale.unsqueeze(1))


def rounded(values: Tensor) -> Tensor:
    """Values rounded to float8, in their dtype. What is past the largest value becomes that; NaN stays NaN."""
    # The cast alone would make NaN of it, and a product with an inverse can be past it by a digit.
    return values.clamp(-_LARGEST, _LARGEST).to(_FORMAT).to(values.dtype)


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale * _LARGEST > _TINY, 1.0 / scale, 0.0)
