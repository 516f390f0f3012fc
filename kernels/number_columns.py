"""A column of numbers in any kind of array → float64, with NaN for what is missing.

Other packages' arrays are recognised without an import.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from donod_fast.errors import InputError


def doubles(name: str, column: Any) -> NDArray[np.float64]:
    """A column as a NumPy array of float64, (n,); None and missing values are NaN.

    Args:
        name: of the column, for messages.
        column: a list, or an array of NumPy, torch, pandas, polars or Arrow.

    Raises:
        InputError: a value is no number or is infinite, or the shape is not (n,).
    """
    if isinstance(column, Tensor):
        column = column.detach().cpu()
        column = (column.double() if column.is_floating_point() else column).numpy()
    elif isinstance(column, np.ma.MaskedArray):
        if column.dtype.kind in "fiu":
            column = np.where(np.ma.getmaskarray(column), np.nan, column.data)
        else:
            column = np.array([*column.tolist(), None], object)[:-1]  # None where the mask is
    elif type(column).__module__.partition(".")[0] == "pyarrow":
        if not hasattr(column, "to_numpy"):
            raise InputError(f"{name} must be one column, got a {type(column).__name__}")
        column = column.to_numpy(zero_copy_only=False)
    elif hasattr(column, "to_numpy"):
        column = column.to_numpy()
    elif isinstance(column, Mapping | Set):
        raise InputError(f"{name} must be a list or an array of numbers, got a {type(column).__name__}")
    elif not isinstance(column, np.ndarray) and not hasattr(column, "__iter__"):
        raise InputError(f"{name} must have the shape (n,), got {column!r}")
    elif not isinstance(column, np.ndarray):
        column = np.array([*column, None], object)[:-1]  # None keeps NumPy from looking into the values
    if column.dtype == object and column.ndim == 1:
        column = _of_values(name, column.tolist())
    if column.ndim != 1:
        raise InputError(f"{name} must have the shape (n,), got {column.shape}")
    if column.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold numbers, got {column.dtype}")
    found = np.array(column, np.float64)
    if np.isinf(found).any():
        at = int(np.flatnonzero(np.isinf(found))[0])
        raise InputError(f"{name} is infinite at row {at}; mark rows that were not scored by NaN or None")
    return found


def refuse_other_order(don: Any, nod: Any) -> None:
    """Refuse two columns of pandas whose rows are not in one order: rows are paired by place, not by index.

    Raises:
        InputError: the indexes differ.
    """
    first: Any = getattr(don, "index", None)
    second: Any = getattr(nod, "index", None)
    if hasattr(first, "equals") and hasattr(second, "equals") and not first.equals(second):
        raise InputError("don and nod have different indexes, and rows are paired by place; align the columns first")


def _of_values(name: str, values: list[Any]) -> NDArray[np.float64]:
    found = np.full(len(values), np.nan)
    for at, value in enumerate(values):
        if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas' own
            continue
        if isinstance(value, bool | np.bool_ | str | bytes | complex):
            raise InputError(f"{name} must hold numbers, got {value!r} at row {at}")
        try:
            found[at] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name} must hold numbers, got {value!r} at row {at}") from None
    return found


__all__ = ["doubles", "refuse_other_order"]
