"""Ranking by one column of a scores table: which end is better, and which rows are left out.

A method of this kind is one of these names:

- the name of any number column: ``el2n``, ``perplexity``, ``ifd_ppl``, ``influence_cos:val``, ``scored_tokens`` …; if a
  column name ends with the name of a reference set and there is only one set, the part before the colon is enough;
- ``ifd`` and ``ifd-loss``: rank by ``ifd_ppl`` and ``ifd_loss``, high values first, and leave out rows at or above 1.
  In those rows the instruction does not make the answer more likely, and the papers also leave them out;
- a name of ``turn_names.py``, such as ``rds-round-robin``: reference sets take turns. :func:`find_method` does not know
  these, since they rank by several columns;
- any of these with an end, such as ``loss@high`` (on the command line ``--prefer high``): rows at that end come first,
  whichever end is the better one by default.

The value of a row (``Ranking.value``) is the column's value, negated if low values are better. Ties are broken by row
number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from donod_fast.errors import InputError, suggest
from donod_fast.selection.turn_names import turn_column

if TYPE_CHECKING:
    from torch import Tensor

    from donod_fast.criteria.base import Column

OWN_METHODS = ("topsis", "don", "nod", "weighted", "pareto", "nodon", "don-threshold", "random", "loss")
"""Methods of :mod:`donod_fast.selection.ranking`; they need only DON, NOD and the loss."""

BY_TOPSIS = ("topsis", "nodon", "pareto")
"""Methods whose order depends on what TOPSIS divides the columns by."""

_ELSEWHERE = ("kmeans-ifd", "kcenter", "cluster-balanced", "rds-round-robin")  # named in suggestions
_BASE = ("don", "nod", "loss", "entropy", "weight_dot_update", "update_norm", "tokens", "scored_tokens")
_LEFT_OUT = {"ifd": ("ifd_ppl", 1.0), "ifd-loss": ("ifd_loss", 1.0)}
FILTERED = tuple(_LEFT_OUT)
"""Methods that leave rows out."""

ENDS = ("high", "low")


@dataclass(frozen=True, slots=True)
class ColumnMethod:
    """A ranking by one column.

    Attributes:
        name: the name that the caller gave.
        column: the column of the scores table.
        high: whether high values come first.
        limit: rows with a value at or above it are left out; None leaves out no row.
    """

    name: str
    column: str
    high: bool
    limit: float | None = None

    def value(self, column: Tensor) -> Tensor:
        """The figure of merit of each row, (n,) float64; elementwise."""
        return (column if self.high else -column) + 0.0  # no −0.0, which DuckDB and a reader would show

    def left_out(self, column: Tensor) -> Tensor:
        """(n,) bool: the rows that the method leaves out."""
        return column >= (float("inf") if self.limit is None else self.limit)


def find_method(method: str, present: Collection[str]) -> ColumnMethod | None:
    """Find the column that a method ranks by; None for a method of :data:`OWN_METHODS`.

    Args:
        method: a name as described at the top of this module.
        present: the number columns of the scores.

    Raises:
        InputError: the method or column does not exist, it is not known which end is better, or an end is given for a
            method whose order is fixed. The message says what to do.
    """
    name, end = split_end(method)
    if name in OWN_METHODS and (end is None or name not in _BASE):
        if end is not None:
            raise InputError(
                f"the order of method {name} is fixed; --prefer {end} is for methods that rank by one column"
            )
        return None
    wanted, limit = _LEFT_OUT.get(name, (name, None))
    column = _resolved(name, wanted, present)
    better = end or ("high" if name in _LEFT_OUT else better_end(column))
    if better is None:
        raise InputError(
            f"method {name}: it is not known which end of the column {column} is better; add --prefer high or "
            f"--prefer low (in recipes {name}@high or {name}@low)"
        )
    return ColumnMethod(method, column, better == "high", limit)


def split_end(method: str) -> tuple[str, str | None]:
    """Split ``loss@high`` into ``loss`` and ``high``; the end is None if the name has none."""
    name, at, end = method.rpartition("@")
    return (name, end) if at and name and end in ENDS else (method, None)


def better_end(column: str) -> str | None:
    """Which end of a column is better: ``high``, ``low``, or None if that is not known.

    For a column of a reference set (``influence_cos:val``) the criterion decides.
    """
    known = _catalogue().get(column.partition(":")[0])
    return None if known is None else known[0].better


def check_known(method: str) -> None:
    """Refuse a name that cannot be a method with any scores, before anything is scored.

    Raises:
        InputError: as :func:`find_method`.
    """
    name, _ = split_end(method)
    turns = turn_column(method)
    if turns is not None:
        if _signal_of(turns) is None or not compares(_signal_of(turns) or ""):
            raise InputError(
                f"method {method}: {turns} is not a column of a criterion that compares with reference sets; write "
                "for example rds-round-robin"
            )
        return
    column = _LEFT_OUT.get(name, (name, None))[0]
    known = set(_number_columns())
    if column in known or column.partition(":")[0] in known:
        known.add(column)
    find_method(method, known)


def signals_of(methods: Iterable[str]) -> tuple[str, ...]:
    """Names of the criteria that methods need besides the base columns, each once, in the order of the methods."""
    found: dict[str, None] = {}
    for method in methods:
        name, _ = split_end(turn_column(method) or method)
        if name not in OWN_METHODS:
            signal = _signal_of(_LEFT_OUT.get(name, (name, None))[0])
            if signal is not None:
                found[signal] = None
    return tuple(found)


def _resolved(name: str, column: str, present: Collection[str]) -> str:
    if column in present:
        return column
    sets = sorted(other for other in present if other.startswith(column + ":"))
    if len(sets) == 1:
        return sets[0]
    if sets:
        raise InputError(f"method {name}: several columns have this name; choose one of {', '.join(sets)}")
    signal = _signal_of(column)
    if signal is None:
        kinds = _other_columns()
        if column in kinds:
            raise InputError(f"method {name}: the column {column} is a {kinds[column]}, not a number to rank by")
        raise InputError(
            f"unknown method {name!r}; known are {', '.join(OWN_METHODS)}, {', '.join(FILTERED)}, and the number "
            f"columns of the scores: {', '.join(sorted(present))}"
            f"{suggest(name, (*OWN_METHODS, *FILTERED, *present, *_ELSEWHERE))}"
        )
    reference = " --reference FILE" if compares(signal) else ""
    raise InputError(
        f"method {name} needs the column {column}, which is missing from some or all parts; add it with "
        f"`donod-fast score … --signals {signal}{reference} --out DIR`, with the same data, model and folder as before"
    )


def compares(signal: str) -> bool:
    """Whether a criterion needs a reference set."""
    from donod_fast.criteria.registry import comparing

    return signal in comparing()


def _signal_of(column: str) -> str | None:
    """The criterion that computes a number column; None for a base column or an unknown one."""
    known = _catalogue().get(column.partition(":")[0])
    return None if known is None or known[0].kind != "number" else known[1]


def _number_columns() -> tuple[str, ...]:
    return (*_BASE, *(name for name, (column, _) in _catalogue().items() if column.kind == "number"))


def _other_columns() -> dict[str, str]:
    """Columns that are not numbers, with their kind."""
    return {name: column.kind for name, (column, _) in _catalogue().items() if column.kind != "number"}


def _catalogue() -> dict[str, tuple[Column, str | None]]:
    """Known columns by name, each with the criterion that computes it (None for a base column); needs no model."""
    from donod_fast.criteria.registry import BASE, SIGNALS, SignalOptions

    found: dict[str, tuple[Column, str | None]] = {column.name: (column, None) for column in BASE}
    for signal, make in SIGNALS.items():
        for column in make(SignalOptions()).columns:
            found[column.name.partition(":")[0]] = column, signal
    return found


__all__ = [
    "BY_TOPSIS",
    "ENDS",
    "FILTERED",
    "OWN_METHODS",
    "ColumnMethod",
    "better_end",
    "check_known",
    "compares",
    "find_method",
    "signals_of",
    "split_end",
]
