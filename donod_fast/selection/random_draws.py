"""Random selections that have something in common with a given one: rows, tokens, or lengths.

A method that prefers long rows trains on more tokens than a random draw of as many rows. Comparing it only with that
draw confuses the choice of rows with the amount of training, so three kinds of draws are made:

- **rows**: as many rows. It depends on the number only, so all methods that keep equally many rows share it.
- **tokens**: rows in random order until their tokens come closest to those of the selection.
- **lengths**: the same distribution of lengths. The candidates, sorted by length (ties in random order), are cut into
  strata of equal size at a random offset, and each stratum gives as many rows as the selection has in it. So the counts
  are equal, and each row has a counterpart in the selection that is less than a stratum away by rank.

The rows of the selection are candidates as well: a random draw does not know it. Where a selection is extreme, such as
the longest rows, a draw of the same lengths has to consist of nearly the same rows. :func:`shared` measures that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from donod_fast.errors import InputError

ROWS, TOKENS, LENGTHS = "rows", "tokens", "lengths"
"""The kinds of draws."""

LEAST_DRAWS = 5
"""Fewer draws say little about the spread of random."""

_STRATA, _LEAST = 20, 8
"""Strata of a large pool, and the fewest rows of a stratum: a draw from fewer would repeat the selection."""

Places = NDArray[np.int64]


def places_of_rows(size: int, count: int, seed: int) -> Places:
    """Draw ``count`` of ``size`` places without replacement, each set with equal chance; ascending.

    Raises:
        InputError: ``count`` is not between 1 and ``size``.
    """
    if not 1 <= count <= size:
        raise InputError(f"a random draw of {count} rows needs 1 to {size} rows, the number of candidates")
    return np.sort(_generator(ROWS, seed).choice(size, count, replace=False))


def places_of_tokens(lengths: Places, total: int, seed: int) -> Places:
    """Draw places in random order until their tokens come closest to ``total``; ascending, at least one.

    Args:
        lengths: (n,) tokens of each candidate.
        total: tokens to draw, at least 1.
        seed: number of the draw.

    Raises:
        InputError: there are no candidates, or ``total`` is below 1.
    """
    if not len(lengths) or total < 1:
        raise InputError(f"a random draw of {total} tokens needs at least 1 token and 1 candidate")
    order = _generator(TOKENS, seed).permutation(len(lengths))
    sums = np.cumsum(lengths[order])
    closest = int(np.argmin(np.abs(sums - total)))
    return np.sort(order[: closest + 1])


def places_of_lengths(lengths: Places, selected: NDArray[np.bool_], seed: int, stratum: int | None = None) -> Places:
    """Draw as many places as are selected, whose lengths are distributed as those of the selection; ascending.

    Args:
        lengths: (n,) tokens of each candidate.
        selected: (n,) whether the selection has it.
        seed: number of the draw.
        stratum: candidates of a stratum; None for a twentieth of them, but at least 8.

    Raises:
        InputError: nothing is selected.
    """
    if not selected.any():
        raise InputError("a random draw of the same lengths needs a selection; it is empty")
    count = len(lengths)
    size = max(_LEAST, -(-count // _STRATA)) if stratum is None else max(1, stratum)
    random = _generator(LENGTHS, seed)
    order = np.lexsort((random.random(count), lengths))
    strata = (np.arange(count) + random.integers(size)) // size
    wanted = np.bincount(strata, weights=selected[order]).astype(np.int64)
    # Each stratum in random order, its first places are drawn.
    order = order[np.lexsort((random.random(count), strata))]
    sizes = np.bincount(strata)
    rank = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[rank < wanted[strata]])


def draw_rows(candidates: Sequence[int], count: int, seed: int) -> tuple[int, ...]:
    """:func:`places_of_rows` for row numbers in any order; ascending."""
    rows = np.array(sorted(candidates), dtype=np.int64)
    return tuple(rows[places_of_rows(len(rows), count, seed)].tolist())


def draw_tokens(lengths: Mapping[int, int], total: int, seed: int) -> tuple[int, ...]:
    """:func:`places_of_tokens` for lengths by row number; ascending row numbers."""
    rows, values = _arrays(lengths)
    return tuple(rows[places_of_tokens(values, total, seed)].tolist())


def draw_lengths(
    lengths: Mapping[int, int], selected: Sequence[int], seed: int, *, stratum: int | None = None
) -> tuple[int, ...]:
    """:func:`places_of_lengths` for lengths by row number; ascending row numbers.

    Raises:
        InputError: nothing is selected, or a selected row is no candidate.
    """
    missing = [row for row in selected if row not in lengths]
    if missing:
        raise InputError(f"row {missing[0]} of the selection has no length; it is not among the candidates")
    rows, values = _arrays(lengths)
    chosen = np.isin(rows, np.array(selected, dtype=np.int64))
    return tuple(rows[places_of_lengths(values, chosen, seed, stratum)].tolist())


def shared(draw: Sequence[int], selected: Sequence[int]) -> float:
    """Share of a draw's rows that are selected too; by chance it is the kept share of the pool."""
    return len(set(draw) & set(selected)) / len(draw)


def _arrays(lengths: Mapping[int, int]) -> tuple[Places, Places]:
    rows = np.array(sorted(lengths), dtype=np.int64)
    return rows, np.array([lengths[row] for row in rows.tolist()], dtype=np.int64)


def _generator(kind: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([(ROWS, TOKENS, LENGTHS).index(kind), seed])


__all__ = [
    "LEAST_DRAWS",
    "LENGTHS",
    "ROWS",
    "TOKENS",
    "draw_lengths",
    "draw_rows",
    "draw_tokens",
    "places_of_lengths",
    "places_of_rows",
    "places_of_tokens",
    "shared",
]
