"""Is a subset like its corpus? Plain warnings where its lengths or its mix of sources are far from the corpus's.

Both rules ask for a large difference that is not chance. Subsets of fewer than 30 rows are not judged.

- **Length**: the mean number of tokens of the kept rows is below 0.75 or above 1.25 times that of all rows, and more
  than three standard errors away from it, that is, where fewer than 3 of 1,000 random draws of as many rows are.
- **Mix**: the total-variation distance between the shares of the groups is above 0.1 and above that of each of 200
  random draws of as many rows. The distance is half the sum of the differences of the shares: 0 for equal shares, 1 if
  no group is in both; it is the share of the kept rows that would have to come from other groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError

FAR_LENGTH = 0.25
FAR_MIX = 0.1
MOST_GROUPS = 50
"""Columns with more groups than this name rows rather than sources."""

_FEWEST = 30
_SURE = 3.0
_DRAWS = 200
_SHOWN = 3

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the tokens of some rows.

    Attributes:
        rows: number of rows.
        total: sum of their tokens.
        squares: sum of the squares.
    """

    rows: int
    total: float
    squares: float

    @staticmethod
    def of(tokens: npt.ArrayLike) -> Moments:
        """Of (n,) numbers of tokens."""
        found = np.asarray(tokens, np.float64)
        return Moments(len(found), float(found.sum()), float((found * found).sum()))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.rows + other.rows, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Tokens of a row; NaN without rows."""
        return self.total / self.rows if self.rows else math.nan

    def error_of(self, count: int) -> float:
        """Standard error of the mean of a random draw of ``count`` of these rows, without replacement."""
        if self.rows < 2 or not count:
            return 0.0
        variance = max(0.0, self.squares - self.rows * self.mean**2) / (self.rows - 1)
        return math.sqrt(variance / count * (1.0 - min(count, self.rows) / self.rows))


def length_warning(tokens_all: npt.ArrayLike, tokens_kept: npt.ArrayLike) -> str | None:
    """One sentence if the kept rows are much longer or shorter than all rows, else None; see the module's rule.

    Args:
        tokens_all: (n,) tokens of all scored rows.
        tokens_kept: (k,) tokens of the kept ones.
    """
    return length_warning_of(Moments.of(tokens_all), Moments.of(tokens_kept))


def length_warning_of(everything: Moments, kept: Moments) -> str | None:
    """:func:`length_warning` of sums."""
    if kept.rows < _FEWEST or not everything.total:
        return None
    ratio, error = kept.mean / everything.mean, everything.error_of(kept.rows)
    away = abs(kept.mean - everything.mean)
    if abs(ratio - 1.0) <= FAR_LENGTH or away <= _SURE * error:
        return None
    word = "longer" if ratio > 1 else "shorter"
    low, high = (everything.mean + sign * _SURE * error for sign in (-1, 1))
    return (
        f"the kept rows are {word} than the corpus: {kept.mean:,.0f} tokens on average instead of "
        f"{everything.mean:,.0f} ({ratio:.2f} times; random draws of as many rows have {max(low, 0):,.0f} to "
        f"{high:,.0f})"
    )


def mix_warning(
    groups_all: npt.ArrayLike, groups_kept: npt.ArrayLike, names: Sequence[str | None], label: str = "groups"
) -> str | None:
    """One sentence if the kept rows come from other groups than all rows, else None; see the module's rule.

    Args:
        groups_all: (n,) group of each scored row, a position in ``names``.
        groups_kept: (k,) group of each kept row.
        names: the groups; None for rows without a value.
        label: the column that the groups are values of.

    Raises:
        InputError: a group is no position in ``names``.
    """
    everything, kept = (_counts(groups, len(names)) for groups in (groups_all, groups_kept))
    return mix_warning_of(everything, kept, names, label)


def mix_warning_of(everything: Counts, kept: Counts, names: Sequence[str | None], label: str = "groups") -> str | None:
    """:func:`mix_warning` of the numbers of rows of each group."""
    count = int(kept.sum())
    distance = distance_of(everything, kept)
    if count < _FEWEST or not distance > FAR_MIX:
        return None
    by_chance = _farthest_draw(everything, count)
    if distance <= by_chance:
        return None
    before, after = everything / everything.sum(), kept / count
    largest = sorted(range(len(names)), key=lambda at: -abs(after[at] - before[at]))[:_SHOWN]
    shown = ", ".join(
        f"{'(none)' if names[at] is None else names[at]} {_percent(after[at])} instead of {_percent(before[at])}"
        for at in largest
        if after[at] != before[at]
    )
    return (
        f"the kept rows mix {label} differently than the corpus: {shown} (distance {distance:.3f}; random draws of as "
        f"many rows have at most {by_chance:.3f})"
    )


def distance_of(everything: Counts, kept: Counts) -> float:
    """Total-variation distance of two lists of counts, from 0 to 1; 0 if either has no rows."""
    if not everything.sum() or not kept.sum():
        return 0.0
    return float(np.abs(everything / everything.sum() - kept / kept.sum()).sum() / 2)


def _farthest_draw(everything: Counts, count: int) -> float:
    """The largest distance of random draws, the same at each call."""
    total, draw = int(everything.sum()), np.random.default_rng(0)
    if total < 10**9:  # NumPy's limit
        drawn = draw.multivariate_hypergeometric(everything, min(count, total), _DRAWS, method="marginals")
    else:
        drawn = draw.multinomial(count, everything / total, _DRAWS)
    return float(np.abs(everything / total - drawn / count).sum(1).max() / 2)


def _counts(groups: npt.ArrayLike, size: int) -> Counts:
    found: Any = np.asarray(groups)
    if len(found) and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= size):
        raise InputError(f"groups must be positions from 0 to {size - 1} in the list of names")
    return np.bincount(found.astype(np.int64), minlength=size)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


__all__ = [
    "FAR_LENGTH",
    "FAR_MIX",
    "MOST_GROUPS",
    "Moments",
    "distance_of",
    "length_warning",
    "length_warning_of",
    "mix_warning",
    "mix_warning_of",
]
