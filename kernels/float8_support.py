"""Which calls have float8 gradient products."""

from __future__ import annotations

import torch
from torch import Tensor

from donod_fast.kernels import float8
from donod_fast.kernels.updates import AdamW, Sign, Update


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
    if weight.numel() < float8.SMALL_HEAD:
        least = float8.SMALL_HEAD
        return f"an output layer of {weight.numel():,} elements is multiplied in float32; {least:,} are needed"
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
