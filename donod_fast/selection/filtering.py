"""Conditions on columns, and lists of row numbers: which of the kept rows are written.

The order of work is always the same: rank all rows, keep the best, then leave out what does not fulfil the conditions.
A condition changes neither the ranking nor the number that ``keep`` means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from donod_fast.errors import InputError, suggest
from donod_fast.selection.filter_options import FilterOptions, parse_condition
from donod_fast.selection.out_of_core.groups import BY_FILE, groups_by, path_columns
from donod_fast.selection.out_of_core.row_set import RowSet

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.rankers import Kept

_BY_LR = ("don", "nod")
_LONGEST_NUMBER = 18


def narrowed(folder: ScoresFolder, kept: Kept, options: FilterOptions, *, lr: float | None = None) -> Kept:
    """The kept rows that fulfil the conditions, in their order; groups keep the counts of before.

    Args:
        folder: the folder of the rows.
        kept: the rows to choose from.
        options: the conditions.
        lr: the learning rate that the rows were ranked at, None for the folder's.

    Raises:
        InputError: an unknown column, a wrong value, a bad list of rows, or no row is left.
        StoreError: the list cannot be read, or a part is damaged.
    """
    if options.is_empty:
        return kept
    allowed: RowSet | None = None if not options.where else _fulfilling(folder, options.where, lr)
    if options.only_rows is not None:
        listed = read_row_numbers(options.only_rows, folder.rows)
        allowed = listed if allowed is None else allowed & listed
    assert allowed is not None
    if isinstance(kept.rows, RowSet):
        rows: Any = kept.rows & allowed
    elif isinstance(kept.rows, list):
        rows = [row for row in kept.rows if row in allowed]
    else:
        rows = kept.rows[[row in allowed for row in kept.rows.tolist()]]
    if not len(rows):
        raise InputError(f"none of the {len(kept.rows):,} kept rows fulfils {options.text}; nothing is written")
    return replace(kept, rows=rows)


def read_row_numbers(path: Path, total: int) -> RowSet:
    """Read a file of row numbers, one a line; empty lines count for nothing.

    Raises:
        InputError: a line is no row number of ``total`` rows, or there is none.
    """
    numbers: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for place, line in enumerate(file, start=1):
                text = line.strip()
                if not text:
                    continue
                is_number = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
                if not is_number or int(text) >= total:
                    raise InputError(
                        f"{path}, line {place}: {text[:40]!r} is no row number from 0 to {total - 1}; write one a line"
                    )
                numbers.append(int(text))
    except OSError as error:
        raise InputError(f"--only-rows {path}: cannot be read: {error.strerror}") from error
    if not numbers:
        raise InputError(f"--only-rows {path}: it lists no row; write one row number a line")
    found = RowSet(total)
    found.add(np.array(numbers, np.int64))
    return found


class FilterColumn(NamedTuple):
    """A column that conditions may name.

    Attributes:
        stored: its name in the parts; None for the input file, which is no column.
        kind: ``number``, ``flag`` or ``text``.
    """

    stored: str | None
    kind: str


def filter_columns(folder: ScoresFolder) -> Mapping[str, FilterColumn]:
    """Columns that conditions may name; a carried column by its own name, where no score has that name."""
    import pyarrow as pa

    from donod_fast.scores.rows import CARRIED, schema

    found: dict[str, FilterColumn] = {}
    for field in schema(folder.carry, folder.signal_columns()):
        own = field.name.removeprefix(CARRIED)
        name = own if own not in found else field.name
        if pa.types.is_boolean(field.type):
            found[name] = FilterColumn(field.name, "flag")
        elif pa.types.is_string(field.type):
            found[name] = FilterColumn(field.name, "text")
        elif pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
            found[name] = FilterColumn(field.name, "number")
    for name in (BY_FILE, *path_columns(folder)):
        found.setdefault(name, FilterColumn(None, "text"))
    return found


def _fulfilling(folder: ScoresFolder, conditions: Sequence[str], lr: float | None) -> RowSet:
    from donod_fast.scores.rows import CARRIED
    from donod_fast.selection.out_of_core.loading import read_columns

    columns = filter_columns(folder)
    wanted: dict[str, list[str]] = {}
    for text in conditions:
        column, value = parse_condition(text)
        name = column if column in columns else column.removeprefix(CARRIED)
        if name not in columns:
            raise InputError(
                f"--where {text}: {folder.name} has no column {column!r}; it has {', '.join(columns)}"
                f"{suggest(column, tuple(columns))}"
            )
        if lr is not None and name in _BY_LR:
            raise InputError(f"--where {text}: {name} is of the folder's learning rate; remove --lr, or this condition")
        wanted.setdefault(name, []).append(value)
    tests = {name: _Test(name, columns[name].kind, values) for name, values in wanted.items()}
    stored = {name: found for name in wanted if (found := columns[name].stored) is not None}
    of_inputs = [(groups_by(folder, name), tests[name]) for name in wanted if name not in stored]
    allowed = [(groups, test.places(groups.names)) for groups, test in of_inputs]
    found_rows = RowSet(folder.rows)
    for part in range(folder.parts):
        table = read_columns(folder, part, list(dict.fromkeys(["row", *stored.values()])))
        rows = table.column("row").to_numpy()
        good = np.ones(len(rows), bool)
        for name, column in stored.items():
            good &= tests[name].of(table.column(column))
        for groups, places in allowed:
            good &= np.isin(groups.numbers(rows, None), places)
        found_rows.add(rows[good])
    return found_rows


class _Test:
    """Conditions on one column, of which one must hold."""

    def __init__(self, name: str, kind: str, values: Iterable[str]) -> None:
        self._name, self._kind = name, kind
        self._values = list(values)
        if kind == "number":
            self._ranges = [self._range(value) for value in self._values]
        if kind == "flag" and (wrong := [value for value in self._values if value not in ("true", "false")]):
            raise InputError(f"--where {name}={wrong[0]}: {name} is a flag; write {name}=true or {name}=false")

    def of(self, column: pa.ChunkedArray) -> Any:
        """Which values fulfil a condition, (n,) bool."""
        import pyarrow.compute as pc

        if self._kind == "number":
            values = column.to_numpy()
            return np.logical_or.reduce([(values >= low) & (values <= high) for low, high in self._ranges])
        texts = pc.if_else(column, "true", "false") if self._kind == "flag" else pc.fill_null(column, "")
        found = [pc.fill_null(pc.equal(texts, value), False).to_numpy() for value in self._values]
        return np.logical_or.reduce(found)

    def places(self, names: Sequence[str | None]) -> list[int]:
        """Places of the values in a list of names.

        Raises:
            InputError: a value is not there.
        """
        known = [name or "" for name in names]
        for value in self._values:
            if value not in known:
                raise InputError(f"--where {self._name}={value}: no input has this name{suggest(value, tuple(known))}")
        return [place for place, name in enumerate(known) if name in self._values]

    def _range(self, value: str) -> tuple[float, float]:
        low, colon, high = value.partition(":")
        try:
            bounds = (float(low) if low.strip() or not colon else -math.inf, float(high) if high.strip() else math.inf)
        except ValueError:
            bounds = (math.nan, math.nan)
        if not colon:
            bounds = (bounds[0], bounds[0])
        if math.isnan(bounds[0]) or math.isnan(bounds[1]) or bounds[0] > bounds[1]:
            raise InputError(
                f"--where {self._name}={value}: {self._name} is a column of numbers; write {self._name}=LOW:HIGH, "
                "where LOW is no more than HIGH and either may be left out"
            )
        return bounds


__all__ = ["FilterColumn", "filter_columns", "narrowed", "read_row_numbers"]
