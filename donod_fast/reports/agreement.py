"""How far the methods of a report agree: rank correlations, overlaps and random draws, and which methods are one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from donod_fast.reports.methods import Method, score_columns
from donod_fast.reports.sampling import SEED
from donod_fast.reports.scored_table import ScoredTable
from donod_fast.selection.comparison import Comparison, compare_columns
from donod_fast.system.wording import plural

ONE = 0.99
"""Two methods with a higher rank correlation are one."""

MOST_ROWS = 200_000
"""Rows that are compared; of more rows, so many random ones."""

_FEWEST = 3


def agreement(table: ScoredTable, methods: Sequence[Method], keep: float | int) -> dict[str, Any] | None:
    """Compare the methods that rank; None where there is nothing to compare.

    Overlaps are of what each keeps; of a sample, a count is its share.
    """
    names = [method.name for method in methods if method.fixed is None]
    if len(names) < 2 or len(table) < _FEWEST:
        return None
    places = None
    share: float | int = keep if isinstance(keep, float) else min(keep, len(table))
    if len(table) > MOST_ROWS:
        drawn = np.random.default_rng(SEED).choice(len(table), MOST_ROWS, replace=False, shuffle=False)
        places = np.sort(drawn)
        share = share if isinstance(share, float) else max(1, round(share * MOST_ROWS / len(table)))
    found = compare_columns(score_columns(table, places), names, share=share, total=len(table))
    return _as_json(found, methods, share)


def methods_that_are_one(found: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Pairs of methods with a rank correlation above 0.99, the later one first, and the correlation."""
    matrix, names = found["correlation"], found["names"]
    return [
        (names[at], names[other], matrix[at][other])
        for at in range(len(names))
        for other in range(at)
        if matrix[at][other] is not None and matrix[at][other] > ONE
    ]


def warn_of_pairs(found: dict[str, Any], methods: Sequence[Method]) -> list[str]:
    """Tell each method which other ones it equals, and return a sentence for each pair."""
    by_name = {method.name: method for method in methods}
    said = []
    for later, earlier, value in methods_that_are_one(found):
        one, other = by_name[later], by_name[earlier]
        text = (
            f"{other.label} and {one.label} give nearly the same order (rank correlation {value:.4f} over "
            f"{plural(found['rows'], 'row')}): as selections they are one method"
        )
        said.append(text)
        for method in (one, other):
            method.warnings.append(text)
    return said


def _as_json(found: Comparison, methods: Sequence[Method], share: float | int) -> dict[str, Any]:
    labels = {method.name: method.label for method in methods}
    amount = f"{100 * share:g} %" if isinstance(share, float) else plural(share, "row")
    rows = plural(found.rows, "row")
    if found.rows < found.total:
        rows = f"{found.rows:,} random rows of {found.total:,}"
    return {
        "names": list(found.names),
        "labels": [labels[name] for name in found.names],
        "correlation": _plain(found.correlation),
        "overlap": _plain(found.overlap),
        "keep": share,
        "measure": found.measure,
        "rows": found.rows,
        "text": f"Spearman's rank correlation over {rows}, signs aligned so that higher is better; overlap: share of "
        f"rows that both keep, at {amount}",
        "yardsticks": [one.as_dict() for one in found.yardsticks],
    }


def _plain(matrix: Any) -> list[list[float | None]]:
    return [[None if math.isnan(value) else round(value, 9) for value in row] for row in matrix.tolist()]


__all__ = ["ONE", "agreement", "methods_that_are_one", "warn_of_pairs"]
