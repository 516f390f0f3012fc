"""Confidence intervals of a share of solved tasks: over seeds, over tasks, and over both.

A cell of the study is a matrix, seeds × tasks, of the share of a task's samples that passed. Two things vary: the
result of a training (seeds), and which tasks the benchmark contains.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from donod_fast.errors import InputError
from donod_fast.studies.core.statistics import Estimate, proportion

Matrix = NDArray[np.float64]


def pooled(values: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """The mean over seeds and tasks, with an interval for both: other seeds, and other tasks of the same kind.

    From the two-way analysis of variance with random seeds and random tasks (Searle, Casella and McCulloch,
    Variance Components, 1992, ch. 4): with mean squares MS of seeds, tasks and what is left, the mean of S seeds and
    T tasks has the variance (max(0, MS_seeds − MS_rest) + max(0, MS_tasks − MS_rest) + MS_rest)/(S·T), and Student's
    t has Satterthwaite's degrees of freedom. Percentiles of a bootstrap over both would be too wide if seeds hardly
    matter and too narrow if they matter a lot, since three seeds are too few to resample. With one seed the interval
    covers tasks only, not the variation between trainings.

    Args:
        values: (seeds, tasks) shares in [0, 1], or differences of such.
        confidence: of the interval.

    Raises:
        InputError: an empty matrix, another number of dimensions, or a NaN.
    """
    from scipy.stats import t

    matrix = _checked(values)
    seeds, tasks = matrix.shape
    value = float(matrix.mean())
    seed_part, task_part = matrix.mean(axis=1) - value, matrix.mean(axis=0) - value
    if seeds == 1 or tasks == 1:
        part, count = (task_part, tasks) if seeds == 1 else (seed_part, seeds)
        if count == 1:
            return Estimate(value, -math.inf, math.inf)
        variance, freedom = float((part**2).sum()) / (count - 1) / count, float(count - 1)
    else:
        rest = matrix - value - seed_part[:, None] - task_part[None, :]
        rest_freedom = (seeds - 1) * (tasks - 1)
        of_rest = float((rest**2).sum()) / rest_freedom
        of_seeds = tasks * float((seed_part**2).sum()) / (seeds - 1)
        of_tasks = seeds * float((task_part**2).sum()) / (tasks - 1)
        total = max(0.0, of_seeds - of_rest) + max(0.0, of_tasks - of_rest) + of_rest
        spread = sum(
            square**2 / degrees
            for square, degrees, counts in (
                (of_seeds, seeds - 1, of_seeds > of_rest),
                (of_tasks, tasks - 1, of_tasks > of_rest),
                (of_rest, rest_freedom, (of_seeds > of_rest) == (of_tasks > of_rest)),
            )
            if counts
        )
        variance = total / (seeds * tasks)
        freedom = total**2 / spread if spread > 0 else math.inf
    half = float(t.ppf(0.5 + confidence / 2, max(1.0, freedom))) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)


def pooled_share(passed: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """:func:`pooled` of shares, within [0, 1]; if no task or every task passed, Wilson's interval over the tasks.

    Raises:
        InputError: as :func:`pooled`.
    """
    matrix = _checked(passed)
    value = float(matrix.mean())
    if value in (0.0, 1.0):
        tasks = matrix.shape[1]
        return proportion(round(value * tasks), tasks, confidence=confidence)
    estimate = pooled(matrix, confidence=confidence)
    return Estimate(value, max(0.0, estimate.low), min(1.0, estimate.high))


def paired(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """First minus second, seed by seed and task by task; see :func:`pooled`.

    Raises:
        InputError: the matrices differ in shape.
    """
    a, b = _checked(first), _checked(second)
    if a.shape != b.shape:
        raise InputError(f"what is compared must have the same seeds and tasks, got {a.shape} and {b.shape}")
    return pooled(a - b, confidence=confidence)


def verdict(difference: Estimate, *, higher_is_better: bool = True) -> str:
    """``better``, ``worse``, ``no difference`` (the interval contains zero) or ``unknown`` (there is no interval)."""
    if not (math.isfinite(difference.low) and math.isfinite(difference.high)):
        return "unknown"
    if difference.low <= 0 <= difference.high:
        return "no difference"
    return "better" if (difference.low > 0) == higher_is_better else "worse"


def _checked(values: ArrayLike) -> Matrix:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size or np.isnan(matrix).any():
        raise InputError(f"shares must be a matrix (seeds, tasks) without NaN, got shape {matrix.shape}")
    return matrix


__all__ = ["paired", "pooled", "pooled_share", "verdict"]
