"""Tensor descriptors: tiles that sm_90 and later copy to shared memory with one instruction of one thread (TMA).

A pointer load computes an address per thread and 16 bytes. A descriptor load does not, and it gives 0 outside the
tensor. A kernel has a constexpr ``TMA`` and takes, in the same argument, a descriptor (``x.load([row, column])``) or a
pointer. The launch function decides, for all of the kernel's tiles together:

    tma = config.tma and describable(x, y)
    kernel[grid](described(x, (rows, columns), tma), described(y, (columns, dim), tma), ..., TMA=tma)

Conditions (CUDA programming guide, "Tensor Memory Accelerator"): the last dimension is contiguous, the address and
the distance of two rows are multiples of 16 bytes, and a block has at most 256 elements a side.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # before Triton 3.4: pointers
    TensorDescriptor = None

_ALIGNMENT = 16  # bytes
_LARGEST_SIDE = 256


def describable(*tensors: Tensor) -> bool:
    """Whether this Triton has descriptors, and each of the matrices can have one."""
    return TensorDescriptor is not None and all(_aligned(tensor) for tensor in tensors)


def _aligned(tensor: Tensor) -> bool:
    rows, columns = tensor.shape
    pitch = tensor.stride(0) * tensor.element_size()
    return (
        rows > 0
        and columns > 0
        and tensor.stride(1) == 1
        # The driver refuses a pitch of 2⁴⁰ bytes or more, and the distance of overlapping rows.
        and columns * tensor.element_size() <= pitch < 2**40
        and pitch % _ALIGNMENT == 0
        and tensor.data_ptr() % _ALIGNMENT == 0
    )


def described(tensor: Tensor, block: tuple[int, int], tma: bool) -> Any:
    """Argument of a kernel: a descriptor of the matrix for tiles of ``block``, or the tensor if ``tma`` is false."""
    if not tma:
        return tensor
    assert max(block) <= _LARGEST_SIDE, block
    return TensorDescriptor.from_tensor(tensor, list(block))
