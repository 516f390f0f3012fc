"""Rows of hosts that hold tables: from columns to records, and a check of the columns that settings name.

In a table every row has every column, and an absent value is None. A mapped column that the table does not have is
therefore a mistake in the settings of the run, not a fault of a row.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from donod_fast.adapters.columns import PREFIX
from donod_fast.data.column_map import ROLES, ColumnMap
from donod_fast.errors import InputError, suggest

_log = logging.getLogger(__name__)


def table_rows(columns: Mapping[str, Sequence[Any]], *, but: str = PREFIX) -> list[dict[str, Any]]:
    """The rows of some columns of equal length, as plain dicts.

    Args:
        columns: the values of each column.
        but: columns whose names begin with this are the host's own, and no part of a record.
    """
    names = [name for name in columns if not name.startswith((but, PREFIX))]
    values = [columns[name] for name in names]
    return [{name: plain(value) for name, value in zip(names, row, strict=True)} for row in zip(*values, strict=True)]


def plain(value: Any) -> Any:
    """The value in plain Python types: hosts wrap dicts in classes of their own, or hold NumPy's numbers and arrays.

    NaN, and what pandas has for an absent value, is None.
    """
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if isinstance(value, float) and math.isnan(value) else value


def check_columns(mapping: ColumnMap | None, present: Collection[str]) -> None:
    """Refuse a mapping that names a column that a table does not have.

    A column that a record need not have (a system prompt, a history) is warned of.

    Args:
        mapping: which column plays which role; None finds them by their names.
        present: the columns of the table.

    Raises:
        InputError: names each absent column, its role, and the columns that are there.
    """
    if mapping is None:
        return
    named = {column: role for role in ROLES if (column := getattr(mapping, role)) is not None}
    absent = {column: role for column, role in named.items() if column not in present}
    for column in sorted(absent.keys() & mapping.optional.keys()):
        _log.warning("the table has no column %r, which is mapped to %s", column, absent.pop(column))
    if absent:
        listed = [f"{column!r} (mapped to {role}{suggest(column, present)})" for column, role in absent.items()]
        there = ", ".join(sorted(map(repr, present)))
        raise InputError(f"the table has no column {', '.join(listed)}; it has {there}")


__all__ = ["check_columns", "plain", "table_rows"]
