"""TOPSIS over two columns: closeness of every sample to (max DON, min NOD).

Source: Hu et al., DONOD, arXiv 2504.14810, appendix A.5, eq. 8–12. With x_i the DON and y_i the NOD
of sample i, weights w and the norms taken over the n samples (the paper prints the sum of eq. 8 over
k = 1..2; a normalisation of a column is over its samples):

    v_i = (w_x · x_i / ‖x‖₂,  w_y · y_i / ‖y‖₂)                                       (eq. 8, 9)
    Z⁺  = (max DON, min NOD),  Z⁻ = (min DON, max NOD)   of the v_i                   (eq. 10)
    D±_i = ‖v_i − Z±‖₂,  C_i = D⁻_i / (D⁺_i + D⁻_i) ∈ [0, 1]                          (eq. 11, 12)

The work is in two halves, so that the constants of a corpus in many parts can come from the parts:
:func:`column_constants` (one pass, a handful of numbers) and :func:`topsis_from_constants` (elementwise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from donod_fast.errors import BackendError, InputError


class ColumnConstants(NamedTuple):
    """What TOPSIS must know of one column. Each is a 0-dim floating tensor on the column's device.

    The squares are kept relative to ``scale``, because Σx² itself leaves the range of float32 at
    x = 1e-25 already. Parts of a column combine: the larger scale wins, the sums add up after a
    factor (scale_part / scale)², and extremes are extremes.
    """

    scale: Tensor  # max |x|; 0 for a column of zeros (or without any scored sample)
    squares: Tensor  # Σ (x / scale)², in [1, n]; 0 where scale is 0
    low: Tensor  # min x; +inf without any scored sample
    high: Tensor  # max x; -inf without any scored sample


def topsis(
    don: Tensor,  # (n,) any real dtype
    nod: Tensor,  # (n,) any real dtype
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    backend: str = "auto",
) -> Tensor:
    """Closeness of each sample to the ideal (max DON, min NOD); see the module's head for the formula.

    Args:
        don: (n,) delta of norm, high is good. NaN: the sample was not scored.
        nod: (n,) norm of delta, low is good. NaN: the sample was not scored.
        weights: of DON and of NOD; non-negative, not both zero; only their ratio counts.
        backend: ``"torch"`` (any device), ``"triton"`` (CUDA and ROCm; CPU tensors under ``TRITON_INTERPRET=1``) or
            ``"auto"``: Triton on an accelerator where it can serve, else torch.

    Returns:
        (n,) float64 on the tensors' own device (float32 on a device without float64), in [0, 1],
        higher is better. A sample that is NaN in either column is left out of the norms and the
        extremes, and its closeness is NaN. Where all (scored) samples are equal, n = 1 included,
        eq. 12 is 0/0: each of them gets 0.5. A constant column has no say; neither has one of zeros.

    Raises:
        InputError: shapes, devices or dtypes that do not fit; an infinite entry (looking for one
            costs the only wait for the device in this function); bad weights.
        BackendError: the backend asked for by name cannot serve.
    """
    if backend not in ("auto", "torch", "triton"):
        raise InputError(f"backend must be one of ('auto', 'torch', 'triton'), got {backend!r}")
    share = normalised_weights(weights)
    don, nod = _checked_columns(don, nod)
    if don.numel() == 0:
        return don
    if backend == "triton" or (backend == "auto" and don.device.type == "cuda"):
        reason = _why_not_triton(don, nod)
        if reason is None:
            from donod_fast.kernels.triton_backend.topsis import launch_topsis

            return launch_topsis(don, nod, share)
        if backend == "triton":
            raise BackendError(f"backend 'triton' cannot serve this: {reason}; use 'torch' or 'auto'")
    unscored = don.isnan() | nod.isnan()
    don = don.masked_fill(unscored, math.nan)
    nod = nod.masked_fill(unscored, math.nan)
    return topsis_from_constants(don, nod, column_constants(don), column_constants(nod), weights=share)


def _why_not_triton(don: Tensor, nod: Tensor) -> str | None:
    try:
        from donod_fast.kernels.triton_backend.topsis import supports
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return supports(don, nod)


def column_constants(column: Tensor) -> ColumnConstants:  # (n,) floating, n >= 1
    """Scale, sum of squares and extremes of a (n,) floating column over its entries that are not NaN."""
    present = ~column.isnan()
    scale = column.abs().masked_fill(~present, 0.0).amax()
    relative = column.masked_fill(~present, 0.0) / _one_if_zero(scale)
    return ColumnConstants(
        scale=scale,
        squares=relative.square().sum(),
        low=column.masked_fill(~present, math.inf).amin(),
        high=column.masked_fill(~present, -math.inf).amax(),
    )


def topsis_from_constants(
    don: Tensor,  # (n,) floating, NaN where not scored
    nod: Tensor,  # (n,) floating, NaN where not scored
    don_constants: ColumnConstants,
    nod_constants: ColumnConstants,
    *,
    weights: tuple[float, float] = (0.5, 0.5),
) -> Tensor:
    """Closeness (n,) of samples, given the constants of the whole columns that they are part of.

    Elementwise, no wait for the device. ``weights`` as in :func:`topsis`, which also says what the
    result is for NaN and for columns of equal samples. Raises InputError for bad weights.
    """
    don_weight, nod_weight = normalised_weights(weights)
    to_ideal = _length(
        _gap(don, don_constants.high, don_constants) * don_weight,
        _gap(nod, nod_constants.low, nod_constants) * nod_weight,
    )
    to_worst = _length(
        _gap(don, don_constants.low, don_constants) * don_weight,
        _gap(nod, nod_constants.high, nod_constants) * nod_weight,
    )
    total = to_ideal + to_worst
    return torch.where(total == 0, 0.5, to_worst / _one_if_zero(total))


def _gap(column: Tensor, bound: Tensor, constants: ColumnConstants) -> Tensor:
    """(x − bound) / ‖x‖₂, the difference first: it is exact for close values, normalised ones are not.

    Halves are subtracted, so that two values near the largest number do not overflow.
    """
    difference = column / 2 - bound / 2
    return difference / _one_if_zero(constants.scale) / _one_if_zero(constants.squares).sqrt() * 2


def _length(a: Tensor, b: Tensor) -> Tensor:
    """√(a² + b²) without overflow or underflow.

    Not by ``torch.hypot``: on a CPU it rounds otherwise at the end of a vector than within, so that equal samples could
    differ by where they stand, and a column ranked in parts from the same column ranked whole.
    """
    a, b = a.abs(), b.abs()
    longer = torch.maximum(a, b)
    ratio = torch.minimum(a, b) / _one_if_zero(longer)
    return longer * (1 + ratio * ratio).sqrt()


def _one_if_zero(divisor: Tensor) -> Tensor:
    return divisor.masked_fill(divisor == 0, 1.0)


def normalised_weights(weights: Sequence[float]) -> tuple[float, float]:
    """Weights of DON and NOD with the sum 1. Raises InputError for bad ones."""
    try:
        don_weight, nod_weight = (float(weight) for weight in weights)
    except (TypeError, ValueError):
        raise InputError(f"weights must be two numbers (of DON, of NOD), got {weights!r}") from None
    largest = max(don_weight, nod_weight)
    if not (math.isfinite(don_weight) and math.isfinite(nod_weight)) or min(don_weight, nod_weight) < 0:
        raise InputError(f"weights must be finite and not negative, got {weights!r}")
    if largest == 0:
        raise InputError("weights must not both be zero")
    don_weight, nod_weight = don_weight / largest, nod_weight / largest  # their sum cannot overflow now
    total = don_weight + nod_weight
    return don_weight / total, nod_weight / total


def _checked_columns(don: Tensor, nod: Tensor) -> tuple[Tensor, Tensor]:
    for name, column in (("don", don), ("nod", nod)):
        if not isinstance(column, Tensor):
            raise InputError(f"{name} must be a torch.Tensor, got {type(column).__name__}")
        if column.ndim != 1:
            raise InputError(f"{name} must have the shape (n,), got {tuple(column.shape)}")
        if column.is_complex() or column.dtype == torch.bool:
            raise InputError(f"{name} must be of a real number type, got {column.dtype}")
    if don.shape != nod.shape:
        raise InputError(f"don and nod must have one length, got {don.shape[0]} and {nod.shape[0]}")
    if don.device != nod.device:
        raise InputError(f"don and nod must be on one device, got {don.device} and {nod.device}")
    dtype = torch.float32 if don.device.type == "mps" else torch.float64
    don, nod = don.detach().to(dtype), nod.detach().to(dtype)
    infinite = torch.stack([don.isinf().any(), nod.isinf().any()]).tolist()  # the one wait for the device
    for name, found in zip(("don", "nod"), infinite, strict=True):
        if found:
            raise InputError(f"{name} has infinite entries; mark unscored samples by NaN")
    return don, nod
