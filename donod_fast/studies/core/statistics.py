"""Statistics of the studies: intervals, separation and overlap, based on SciPy and NumPy.

Every interval is (low, high) at 95 % unless stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from donod_fast.errors import InputError
from donod_fast.evaluation.passk import wilson


class Estimate(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """``0.653 [0.610, 0.694]``."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def auc(higher: ArrayLike, lower: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Probability that a score of the first group exceeds one of the second, ties half (the Mann–Whitney AUC).

    The interval is DeLong's (1988), on the logit scale so that it stays within [0, 1]; where the groups are
    separated completely it is the one-sided rule of three for the smaller group.

    Args:
        higher: (m,) scores of the group that is expected above (clean rows, say).
        lower: (n,) scores of the other group.
        confidence: confidence level of the interval.

    Raises:
        InputError: a group is empty or has a NaN.
    """
    from scipy.stats import norm, rankdata

    first, second = _numbers("higher", higher), _numbers("lower", lower)
    m, n = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))
    # placements: for each score the share of the other group below it
    above = (ranks[:m] - rankdata(first)) / n
    below = 1 - (ranks[m:] - rankdata(second)) / m
    value = float(above.mean())
    if value in (0.0, 1.0) or m < 2 or n < 2:
        margin = 1 - (1 - confidence) ** (1 / min(m, n))
        return Estimate(value, max(0.0, value - margin), min(1.0, value + margin))
    deviation = math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n)
    half = float(norm.ppf(0.5 + confidence / 2)) * deviation / (value * (1 - value))
    logit = math.log(value / (1 - value))
    return Estimate(value, _sigmoid(logit - half), _sigmoid(logit + half))


def proportion(passed: int, total: int, *, confidence: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval, see :func:`donod_fast.evaluation.passk.wilson`.

    Raises:
        InputError: no trials, or more successes than trials.
    """
    return Estimate(passed / max(1, total), *wilson(passed, total, confidence=confidence))


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """The mean of independent runs (seeds) with Student's t interval; one run has an interval without bounds.

    Raises:
        InputError: no values, or a NaN.
    """
    from scipy.stats import t

    numbers = _numbers("values", values)
    value = float(numbers.mean())
    if len(numbers) == 1:
        return Estimate(value, -math.inf, math.inf)
    half = float(t.ppf(0.5 + confidence / 2, len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers)))
    return Estimate(value, value - half, value + half)


def overlap(first: Sequence[int], second: Sequence[int]) -> float:
    """Share of the first selection that is also in the second; by chance it is the kept fraction.

    Raises:
        InputError: the first selection is empty.
    """
    if not len(first):
        raise InputError("the overlap of an empty selection is not defined")
    return len(set(map(int, first)) & set(map(int, second))) / len(first)


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or np.isnan(numbers).any():
        raise InputError(f"{name} must be a list of numbers, at least one and none of them NaN")
    return numbers


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


__all__ = ["Estimate", "auc", "mean_interval", "overlap", "proportion"]
