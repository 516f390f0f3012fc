"""DON and NOD out of what holds rows in other tools: tables, frames, mappings of columns, and lists of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from donod_fast.errors import InputError

PER_LR = ("donod_don_per_lr", "donod_nod_per_lr")
"""Columns of a host's rows: DON and NOD divided by the learning rate."""

_PAIRS = (("don", "nod"), PER_LR)


@dataclass(frozen=True, slots=True)
class Columns:
    """DON and NOD of some rows.

    Attributes:
        don: (n,) float64, NaN where a row was not scored.
        nod: (n,) float64, NaN where a row was not scored.
        per_lr: whether they are divided by the learning rate.
    """

    don: Any
    nod: Any
    per_lr: bool


def columns_of(rows: Any) -> Columns:
    """Take the columns ``don`` and ``nod``, else :data:`PER_LR`.

    Args:
        rows: an Arrow table, a frame of pandas, a ``datasets.Dataset``, a mapping of columns, or a list of mappings.

    Raises:
        InputError: it is none of these, a column is missing, or a value is no number.
    """
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        rows = _of_list(rows)
    names = _names(rows)
    pair = next((pair for pair in _PAIRS if all(name in names for name in pair)), None)
    if pair is None:
        raise InputError(f"the rows need the columns don and nod, or {' and '.join(PER_LR)}; they have {names}")
    don, nod = (doubles(name, rows.column(name) if _is_table(rows) else rows[name]) for name in pair)
    if don.shape != nod.shape:
        raise InputError(f"{pair[0]} and {pair[1]} must have the same length, got {len(don)} and {len(nod)}")
    return Columns(don, nod, pair == PER_LR)


def doubles(name: str, column: Any) -> Any:
    """A column as a NumPy array of float64, (n,); None and missing values are NaN.

    Args:
        name: of the column, for messages.
        column: a list, or an array of NumPy, torch, pandas or Arrow.

    Raises:
        InputError: a value is no number or is infinite, or the shape is not (n,).
    """
    if isinstance(column, Tensor):
        column = column.detach().cpu()
        column = (column.double() if column.is_floating_point() else column).numpy()
    elif type(column).__module__.partition(".")[0] == "pyarrow":
        column = column.to_numpy(zero_copy_only=False)
    elif hasattr(column, "to_numpy"):
        column = column.to_numpy()
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


def _of_values(name: str, values: list[Any]) -> Any:
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


def _of_list(rows: Sequence[Any]) -> dict[str, list[Any]]:
    if not all(isinstance(row, Mapping) for row in rows):
        raise InputError("rows must be mappings, as a host gives them")
    pair = next((pair for pair in _PAIRS if all(name in row for row in rows for name in pair)), None)
    if pair is None:
        first = next((pair for pair in _PAIRS if rows and all(name in rows[0] for name in pair)), PER_LR)
        at, row = next((at, row) for at, row in enumerate(rows) if not all(name in row for name in first))
        raise InputError(f"row {at} needs don and nod, or {' and '.join(PER_LR)}; it has {sorted(map(str, row))}")
    return {name: [row[name] for row in rows] for name in pair}


def _is_table(rows: Any) -> bool:
    return callable(getattr(rows, "column", None))


def _names(rows: Any) -> list[str]:
    for name in ("column_names", "columns"):
        found = getattr(rows, name, None)
        if found is not None and not callable(found):
            return [str(one) for one in found]
    if isinstance(rows, Mapping):
        return [str(one) for one in rows]
    raise InputError(f"scores must be a scores folder, a table or rows, got {type(rows).__name__}")


__all__ = ["PER_LR", "Columns", "columns_of", "doubles"]
