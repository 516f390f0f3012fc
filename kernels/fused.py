"""Elementwise passes over a gradient tile in one loop, compiled by Inductor (CPU): the ``inductor`` backend.

For the first step of AdamW PyTorch makes seven passes over a tile, most of them limited by the cache:

    U = g / (a |g| + b),   Σ U²,   Σ W ∘ U        (a = 1, b = eps/s, or a = s/eps, b = 1: see ``direct.py``)

The compiled loop reads the tile once and writes nothing. It sums each row in float32 (dim elements spread over the
lanes of a vector register), and the rows in float64.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from donod_fast.kernels.arguments import HeadBatch
from donod_fast.kernels.updates import AdamW, Update

RowSums = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

_lock = threading.Lock()


def adamw_row_sums(
    g: Tensor,  # (rows, dim) float32
    weight: Tensor,  # (rows, dim) float32
    scale: Tensor,  # (2,) float32: a and b
) -> tuple[Tensor, Tensor]:  # (rows,), (rows,) float32
    """Sum U² and W ∘ U over each row of a tile."""
    update = g / (g.abs() * scale[0] + scale[1])
    return (update * update).sum(1), (update * weight).sum(1)


def can_fuse(batch: HeadBatch) -> bool:
    """Whether the compiled pass supports a call: AdamW's first step, unrounded, in float32."""
    update = batch.update
    fresh = isinstance(update, AdamW) and update.state is None
    return fresh and batch.storage_dtype is None and batch.compute_dtype == torch.float32


def denominators(update: Update, scales: list[float], dtype: torch.dtype) -> list[Tensor]:
    """(a, b) for each sample's s, as tensors: numbers would cause a compilation for each value."""
    assert isinstance(update, AdamW)
    eps = update.eps
    return [torch.tensor([1.0, eps / s] if s >= eps else [s / eps, 1.0], dtype=dtype) for s in scales]


@cache
def why_not_inductor() -> str | None:
    """None if Inductor can compile for the CPU, else the reason."""
    from torch._inductor import config

    names = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else (config.cpp.cxx,)
    if not any(name and shutil.which(name) for name in names):
        return "there is no C++ compiler (g++ or clang++) for Inductor"
    return None


def compiled_row_sums() -> RowSums:
    """:func:`adamw_row_sums` compiled for any number of rows at the first call, which takes some ten seconds."""
    with _lock:
        return _compiled()


@cache
def _compiled() -> RowSums:
    return torch.compile(adamw_row_sums)  # the second number of rows makes it symbolic
