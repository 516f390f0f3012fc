"""Which rows are shown one by one where there are too many for all: a stratified sample, and each method's ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from donod_fast.reports.blocks import Array
from donod_fast.reports.columns import Category
from donod_fast.reports.methods import UNRANKED, Method
from donod_fast.system.wording import plural

SEED = 0
ENDS = 100
"""Rows of a sample from each end of each method, and from its border."""


class Sample(NamedTuple):
    """Rows that are shown one by one.

    Attributes:
        places: (m,) their places among the scored rows, rising.
        text: how they were drawn; None if they are all rows.
    """

    places: Array
    text: str | None


def draw(
    size: int, most: int, methods: Sequence[Method], keep: float | int, source: Category | None, seed: int = SEED
) -> Sample:
    """Draw about ``most`` of ``size`` scored rows.

    The rows are put in order by source and, within a source, by rank of the first method; from a random start, every
    k-th is taken. So each source has its share of the sample, and each stretch of ranks has. Then the best and worst
    rows of each method are added, and those around what it keeps.
    """
    if size <= most:
        return Sample(np.arange(size), None)
    ends = np.unique(np.concatenate([np.zeros(0, np.int64), *ends_of(methods, keep, min(ENDS, most // 50))]))
    wanted = max(most - len(ends), 1)
    first = methods[0].ranks if methods else np.full(size, UNRANKED, np.uint32)
    codes = np.zeros(size, np.uint16) if source is None else source.codes
    order = np.lexsort((first, codes))
    start = np.random.default_rng(seed).random()
    drawn = order[np.floor((np.arange(wanted) + start) * size / wanted).astype(np.int64)]
    by = f"rank by {methods[0].label}" if methods else "row"
    by += "" if source is None else " and by source"
    text = (
        f"{plural(wanted, 'row')} stratified by {by} (every {size / wanted:.3g}th row in that order, from a random "
        f"start with seed {seed}), and {plural(len(ends), 'row')} at the ends of the methods and around what they keep"
    )
    return Sample(np.unique(np.concatenate([drawn, ends])), text)


def ends_of(methods: Iterable[Method], keep: float | int, count: int) -> list[Array]:
    """Places of the best, worst and border rows of each method, ``count`` of each: best first, then border, worst."""
    found = []
    for method in methods:
        order, kept = method.order, method.kept(keep)
        found += [order[:count], order[max(kept - count, 0) : kept + count], order[::-1][:count]]
    return found


__all__ = ["ENDS", "SEED", "Sample", "draw", "ends_of"]
