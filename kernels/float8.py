"""Gradient products in float8 (e4m3) on request: constants, and the same roundings in plain PyTorch.

``triton_backend/float8.py`` has the formulas and the kernels. Here the operands are rounded to the same float8 values
and multiplied in float32. It is slower than without rounding, and there to measure the errors without a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
