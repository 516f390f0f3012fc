"""Columns of a scores table in addition to those that every row has: their kinds and their Arrow types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

Value: TypeAlias = "float | bool | Tensor | None"
"""Value of a column in one row: a number (NaN if missing), a flag, or a (size,) vector; None if missing."""

NAN = math.nan


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a criterion adds.

    Attributes:
        name: name in the scores table.
        text: description in one line.
        better: the end that a selection by this column keeps by default; None if neither end is better.
        kind: ``number`` (float64, NaN if missing), ``flag`` (bool or null) or ``vector`` (float32 or null).
        size: number of entries of a vector.
    """

    name: str
    text: str
    better: Literal["high", "low"] | None = None
    kind: Literal["number", "flag", "vector"] = "number"
    size: int = 1


def arrow_field(column: Column) -> pa.Field:
    """Arrow field of the column."""
    import pyarrow as pa

    match column.kind:
        case "flag":
            return pa.field(column.name, pa.bool_())
        case "vector":
            return pa.field(column.name, pa.list_(pa.float32(), column.size))
    return pa.field(column.name, pa.float64(), nullable=False)


def arrow_array(column: Column, values: Sequence[Value]) -> pa.Array:
    """Arrow array of the column; None becomes null, or NaN in a number column."""
    import numpy as np
    import pyarrow as pa

    kind = arrow_field(column).type
    if column.kind == "number":
        return pa.array([float("nan") if value is None else float(value) for value in values], kind)
    if column.kind == "flag":
        return pa.array(values, kind)
    flat = np.zeros((len(values), column.size), np.float32)
    missing = np.array([value is None for value in values], bool)
    for at, value in enumerate(values):
        if value is not None:
            flat[at] = value
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), type=kind, mask=pa.array(missing))


__all__ = ["NAN", "Column", "Value", "arrow_array", "arrow_field"]
