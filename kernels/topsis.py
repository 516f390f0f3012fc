"""TOPSIS over two columns: closeness of every sample to (max DON, min NOD).

Source: Hu et al., DONOD, arXiv 2504.14810, appendix A.5, eq. 8–12. With x_i the DON and y_i the NOD
of sample i, weights w and the sizes s taken over the n samples:

    v_i = (w_x · x_i / s(x),  w_y · y_i / s(y))                                       (eq. 8, 9)
    Z⁺  = (max DON, min NOD),  Z⁻ = (min DON, max NOD)   of the v_i                   (eq. 10)
    D±_i = ‖v_i − Z±‖₂,  C_i = D⁻_i / (D⁺_i + D⁻_i) ∈ [0, 1]                          (eq. 11, 12)

The size of a column is the normalisation (the names are those of Hwang and Yoon, Multiple Attribute Decision Making,
Springer 1981, and of Çelen, Informatica 25(2), 2014):

- ``vector``: s(x) = ‖x‖₂. Eq. 8, but over the samples: the paper prints the sum over k = 1..2.
- ``range``: s(x) = max x − min x, "min–max". Both columns then span exactly 1, however little they vary about their
  mean; so a column that varies by its rounding alone has as much influence as the other.
- ``sum``: s(x) = Σ|x|.

Each is linear: a column is divided by one number, costs like benefits. An offset (min–max subtracts the minimum, and
others turn costs as 1 − v) cancels in D±. So only the sizes differ.

The computation has two steps, so that the constants of a corpus can be combined from its parts:
:func:`column_constants` (one pass, a handful of numbers) and :func:`topsis_from_constants` (elementwise).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from donod_fast.errors import BackendError, InputError, suggest
from donod_fast.kernels.number_columns import doubles, refuse_other_order

NORMALISATIONS = ("vector", "range", "sum")
"""Names of the sizes by which a column is divided."""

DEFAULT_NORMALISE = "vector"
"""The default of every ``normalise``, in Python and on the command line."""


class Column(Protocol):
    """A column of numbers that is no tensor: a list, or an array of NumPy, pandas, polars or Arrow."""

    def __len__(self) -> int:
        """Number of values."""

    def __iter__(self) -> Iterator[Any]:
        """The values; None or NaN for what is missing."""


class ColumnConstants(NamedTuple):
    """Constants of a column for TOPSIS: 0-dim floating tensors on its device (or of several columns, (columns,) each).

    The sums are relative to ``scale``, because Σx² leaves the range of float32 already at x = 1e-25. Constants of
    parts can be combined: take the largest scale, add the sums after multiplying each by scale_part / scale (its square
    for the squares), and take the extremes of the extremes.
    """

    scale: Tensor  # max |x|; 0 for a column of zeros (or without any scored sample)
    squares: Tensor  # Σ (x / scale)², in [1, n]; 0 if scale is 0
    low: Tensor  # min x; +inf without any scored sample
    high: Tensor  # max x; -inf without any scored sample
    absolutes: Tensor  # Σ |x / scale|, in [1, n]; 0 if scale is 0


def check_normalise(normalise: str) -> str:
    """The name of a normalisation. Raises InputError for another; names the known ones."""
    if not isinstance(normalise, str) or normalise not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise InputError(f"normalise must be one of {known}, got {normalise!r}{suggest(normalise, NORMALISATIONS)}")
    return normalise


@overload
def topsis(
    don: Tensor,
    nod: Column | Tensor,
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    backend: str = "auto",
) -> Tensor: ...


@overload
def topsis(
    don: Column,
    nod: Column | Tensor,
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    backend: str = "auto",
) -> NDArray[np.float64]: ...


def topsis(
    don: Column | Tensor,  # (n,) any real dtype
    nod: Column | Tensor,  # (n,) any real dtype
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    backend: str = "auto",
) -> Tensor | NDArray[np.float64]:
    """Closeness of each sample to the ideal (max DON, min NOD); the formula is in the module's docstring.

    Args:
        don: (n,) delta of norm, higher is better: a tensor, a list, or an array of NumPy, pandas, polars or Arrow. NaN,
            or None, if the sample was not scored.
        nod: (n,) norm of delta, lower is better, in the same way.
        weights: weights of DON and NOD; non-negative, not both zero; only their ratio matters.
        normalise: what a column is divided by, one of :data:`NORMALISATIONS`; defined in the module's docstring.
        backend: ``"torch"`` (any device), ``"triton"`` (CUDA and ROCm; CPU tensors under ``TRITON_INTERPRET=1``) or
            ``"auto"``: Triton on an accelerator that supports it, else torch.

    Returns:
        (n,) float64, in [0, 1], higher is better: a tensor on the device of ``don`` (float32 on a device without
        float64) if that is a tensor, else a NumPy array, computed on the CPU. A sample that is NaN in either column is
        excluded from norms and extremes, and its closeness is NaN. If all (scored) samples are equal, or n = 1, eq. 12
        is 0/0, and each of them gets 0.5. A constant column has no influence.

    Raises:
        InputError: shapes, devices, dtypes or pandas' indexes do not match; an entry is infinite (this check is the
            only wait for the device in this function); the weights are invalid; an unknown normalisation.
        BackendError: the named backend does not support the input.
    """
    if backend not in ("auto", "torch", "triton"):
        raise InputError(f"backend must be one of ('auto', 'torch', 'triton'), got {backend!r}")
    check_normalise(normalise)
    share = normalised_weights(weights)
    if not isinstance(don, Tensor):
        refuse_other_order(don, nod)
        first, second = (torch.from_numpy(doubles(name, one)) for name, one in (("don", don), ("nod", nod)))
        return topsis(first, second, weights=weights, normalise=normalise, backend=backend).numpy()
    if not isinstance(nod, Tensor):
        nod = torch.from_numpy(doubles("nod", nod)).to(don.device)
    don, nod = _checked_columns(don, nod)
    if don.numel() == 0:
        return don
    if backend == "triton" or (backend == "auto" and don.device.type == "cuda"):
        reason = _why_not_triton(don, nod)
        if reason is None:
            from donod_fast.kernels.triton_backend.topsis import launch_closeness, launch_constants

            both = ColumnConstants(*launch_constants(don, nod))
            bounds = torch.stack([both.low, both.high, *column_size(both, normalise)], 1)
            return launch_closeness(don, nod, bounds, share)
        if backend == "triton":
            raise BackendError(f"backend 'triton' does not support this call: {reason}; use 'torch' or 'auto'")
    unscored = don.isnan() | nod.isnan()
    don = don.masked_fill(unscored, math.nan)
    nod = nod.masked_fill(unscored, math.nan)
    return topsis_from_constants(
        don, nod, column_constants(don), column_constants(nod), weights=share, normalise=normalise
    )


def _why_not_triton(don: Tensor, nod: Tensor) -> str | None:
    try:
        from donod_fast.kernels.triton_backend.topsis import supports
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return supports(don, nod)


def column_constants(column: Tensor) -> ColumnConstants:  # (n,) floating, n >= 1
    """Scale, sums and extremes of a (n,) floating column over its entries that are not NaN."""
    present = ~column.isnan()
    scale = column.abs().masked_fill(~present, 0.0).amax()
    relative = column.masked_fill(~present, 0.0) / _one_if_zero(scale)
    return ColumnConstants(
        scale=scale,
        squares=relative.square().sum(),
        low=column.masked_fill(~present, math.inf).amin(),
        high=column.masked_fill(~present, -math.inf).amax(),
        absolutes=relative.abs().sum(),
    )


def topsis_from_constants(
    don: Tensor,  # (n,) floating, NaN where not scored
    nod: Tensor,  # (n,) floating, NaN where not scored
    don_constants: ColumnConstants,
    nod_constants: ColumnConstants,
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
) -> Tensor:
    """Closeness (n,) of samples, given the constants of the whole columns.

    It is elementwise and does not wait for the device. ``weights``, ``normalise``, NaN and equal samples are treated
    as in :func:`topsis`. Raises InputError for invalid weights and an unknown normalisation.
    """
    don_weight, nod_weight = normalised_weights(weights)
    don_size, nod_size = column_size(don_constants, normalise), column_size(nod_constants, normalise)
    to_ideal = _length(
        _gap(don, don_constants.high, don_size) * don_weight,
        _gap(nod, nod_constants.low, nod_size) * nod_weight,
    )
    to_worst = _length(
        _gap(don, don_constants.low, don_size) * don_weight,
        _gap(nod, nod_constants.high, nod_size) * nod_weight,
    )
    total = to_ideal + to_worst
    return torch.where(total == 0, 0.5, to_worst / _one_if_zero(total))


class ColumnSize(NamedTuple):
    """The size of a column as ``scale`` · ``factor``, whose product may overflow; 1 in place of 0."""

    scale: Tensor
    factor: Tensor


def column_size(constants: ColumnConstants, normalise: str) -> ColumnSize:
    """What a normalisation divides a column by. Raises InputError: it is unknown."""
    check_normalise(normalise)
    if normalise == "range":  # of halves: the range of the largest numbers would overflow
        half = constants.high / 2 - constants.low / 2
        return ColumnSize(_one_if_zero(half), torch.full_like(half, 2.0))
    factor = constants.squares.sqrt() if normalise == "vector" else constants.absolutes
    return ColumnSize(_one_if_zero(constants.scale), _one_if_zero(factor))


def _gap(column: Tensor, bound: Tensor, size: ColumnSize) -> Tensor:
    """Compute (x − bound) / size, the difference first: it is exact for close values, but not after normalisation.

    Halves are subtracted, so that values near the largest number do not overflow.
    """
    difference = column / 2 - bound / 2
    return difference / size.scale / size.factor * 2


def _length(a: Tensor, b: Tensor) -> Tensor:
    """Compute √(a² + b²) without overflow or underflow.

    ``torch.hypot`` is not used: on a CPU it rounds differently at the end of a vector. Equal samples could then get
    different results by their position, and so could a column that is ranked in parts.
    """
    a, b = a.abs(), b.abs()
    longer = torch.maximum(a, b)
    ratio = torch.minimum(a, b) / _one_if_zero(longer)
    return longer * (1 + ratio * ratio).sqrt()


def _one_if_zero(divisor: Tensor) -> Tensor:
    return divisor.masked_fill(divisor == 0, 1.0)


def normalised_weights(weights: Sequence[float]) -> tuple[float, float]:
    """Weights of DON and NOD, scaled to the sum 1. Raises InputError if they are invalid."""
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
        if column.ndim != 1:
            raise InputError(f"{name} must have the shape (n,), got {tuple(column.shape)}")
        if column.is_complex() or column.dtype == torch.bool:
            raise InputError(f"{name} must be of a real number type, got {column.dtype}")
    if don.shape != nod.shape:
        raise InputError(f"don and nod must have the same length, got {don.shape[0]} and {nod.shape[0]}")
    if don.device != nod.device:
        raise InputError(f"don and nod must be on the same device, got {don.device} and {nod.device}")
    dtype = torch.float32 if don.device.type == "mps" else torch.float64
    don, nod = don.detach().to(dtype), nod.detach().to(dtype)
    infinite = torch.stack([don.isinf().any(), nod.isinf().any()]).tolist()  # the only wait for the device
    for name, found in zip(("don", "nod"), infinite, strict=True):
        if found:
            raise InputError(f"{name} has infinite entries; mark unscored samples by NaN")
    return don, nod
