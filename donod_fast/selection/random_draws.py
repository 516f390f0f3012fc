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


class TokenDraw:
    """A random order of candidates, to be cut where the tokens come closest to a total.

    Args:
        lengths: (n,) tokens of each candidate, at least one candidate.
        seed: number of the draw.

    Raises:
        InputError: there are no candidates.
    """

    def __init__(self, lengths: Places, seed: int) -> None:
        if not len(lengths):
            raise InputError("a random draw of tokens needs at least 1 candidate; there is none")
        self._order = _generator(TOKENS, seed).permutation(len(lengths))
        self._sums = np.cumsum(lengths[self._order])

    def places(self, total: int) -> Places:
        """Places whose tokens come closest to ``total``; ascending, at least one.

        Raises:
            InputError: ``total`` is below 1.
        """
        if total < 1:
            raise InputError(f"a random draw of {total} tokens needs at least 1 token")
        return np.sort(self._order[: int(np.argmin(np.abs(self._sums - total))) + 1])


class LengthDraw:
    """Strata of candidates by length, each in random order.

    Args:
        lengths: (n,) tokens of each candidate.
        seed: number of the draw.
        stratum: candidates of a stratum; None for a twentieth of them, but at least 8.
    """

    def __init__(self, lengths: Places, seed: int, stratum: int | None = None) -> None:
        count, random = len(lengths), _generator(LENGTHS, seed)
        size = max(_LEAST, -(-count // _STRATA)) if stratum is None else max(1, stratum)
        order = np.lexsort((random.random(count), lengths))
        self._strata = (np.arange(count) + random.integers(size)) // size
        self._order = order[np.lexsort((random.random(count), self._strata))]
        sizes = np.bincount(self._strata)
        self._ranks = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)

    def places(self, selected: NDArray[np.bool_]) -> Places:
        """As many places as are selected, with lengths as those of the selection; ascending.

        Args:
            selected: (n,) whether the selection has the candidate.

        Raises:
            InputError: nothing is selected.
        """
        if not selected.any():
            raise InputError("a random draw of the same lengths needs a selection; it is empty")
        wanted = np.bincount(self._strata, weights=selected[self._order]).astype(np.int64)
        return np.sort(self._order[self._ranks < wanted[self._strata]])


def draw_rows(candidates: Sequence[int], count: int, seed: int) -> tuple[int, ...]:
    """:func:`places_of_rows` for row numbers in any order; ascending."""
    rows = np.array(sorted(candidates), dtype=np.int64)
    return tuple(rows[places_of_rows(len(rows), count, seed)].tolist())


def draw_tokens(lengths: Mapping[int, int], total: int, seed: int) -> tuple[int, ...]:
    """:class:`TokenDraw` for lengths by row number; ascending row numbers."""
    rows, values = _arrays(lengths)
    return tuple(rows[TokenDraw(values, seed).places(total)].tolist())


def draw_lengths(
    lengths: Mapping[int, int], selected: Sequence[int], seed: int, *, stratum: int | None = None
) -> tuple[int, ...]:
    """:class:`LengthDraw` for lengths by row number; ascending row numbers.

    Raises:
        InputError: nothing is selected, or a selected row is no candidate.
    """
    missing = [row for row in selected if row not in lengths]
    if missing:
        raise InputError(f"row {missing[0]} of the selection has no length; it is not among the candidates")
    rows, values = _arrays(lengths)
    chosen = np.isin(rows, np.array(selected, dtype=np.int64))
    return tuple(rows[LengthDraw(values, seed, stratum).places(chosen)].tolist())


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
    "LengthDraw",
    "TokenDraw",
    "draw_lengths",
    "draw_rows",
    "draw_tokens",
    "places_of_rows",
    "shared",
]
