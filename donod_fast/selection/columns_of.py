"""DON and NOD out of what holds rows in other tools: tables, frames, mappings of columns, and lists of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.errors import InputError
from donod_fast.kernels.number_columns import doubles

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


__all__ = ["PER_LR", "Columns", "columns_of"]
