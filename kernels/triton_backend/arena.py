"""The workspace of a call: one allocation, from which the tensors of a group of samples are carved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import ceil_div

# Every tensor begins at a multiple, as torch's own allocations do on a device. Tensor descriptors need 16 bytes.
_ALIGNMENT = 256


class Need(NamedTuple):
    """Shape and dtype of a tensor that a group needs."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes of it in an arena."""
        return ceil_div(math.prod(self.shape) * self.dtype.itemsize, _ALIGNMENT) * _ALIGNMENT


class Arena:
    """A buffer of ``size`` bytes whose tensors are released in the reverse order (a stack)."""

    def __init__(self, size: int, device: torch.device) -> None:
        # A CPU aligns to 64 bytes only, so the first tensor may have to begin later.
        buffer = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
        self._buffer = buffer[-buffer.data_ptr() % _ALIGNMENT :][:size]
        self._used = 0

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Tensors taken in the block are released at its end."""
        used = self._used
        try:
            yield
        finally:
            self._used = used

    def take(self, need: Need) -> Tensor:
        """A contiguous tensor, not filled. Its memory may hold anything."""
        start, size = self._used, math.prod(need.shape) * need.dtype.itemsize
        assert start + need.bytes <= self._buffer.numel(), f"the plan counted {self._buffer.numel()} bytes: {need}"
        self._used += need.bytes
        return self._buffer[start : start + size].view(need.dtype).view(need.shape)
