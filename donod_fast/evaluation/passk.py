"""pass@k without bias, and how sure it is.

pass@k of a task with n samples of which c pass is 1 − C(n−c, k) / C(n, k) (Chen et al., arXiv 2107.03374, §2.1, eq. 1),
and that of a benchmark its mean over tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from donod_fast.errors import InputError

DRAWS = 10_000
_Z95 = 1.959963984540054  # the standard normal's 97.5 % point


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The probability that one of k samples passes, of n = ``samples`` drawn of which c = ``passed`` do.

    As the product 1 − ∏ (1 − k / i) over i = n−c+1 … n, which has no large binomials in it, in the order of
    human-eval's own program, so that its figures come out to the last digit.

    Raises:
        InputError: not 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise InputError(f"pass@k wants 1 ≤ k ≤ n and 0 ≤ c ≤ n; got n={samples}, c={passed}, k={k}")
    if samples - passed < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> float:
    """The mean of pass@k over tasks, each given as (samples, passed)."""
    return float(np.mean([pass_at_k(samples, passed, k) for samples, passed in counts]))


def interval(counts: Sequence[tuple[int, int]], k: int, seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of the mean of pass@k over tasks, each given as (samples, passed).

    With one sample a task by Wilson's formula. With more by the bootstrap over tasks: percentiles of the mean over
    :data:`DRAWS` resamples of the tasks, drawn by ``seed``; where no task differs from another there is nothing to
    resample, and it is Wilson's for all tasks solved or none, and (0, 1) for what a single task says of others. Both
    speak of the choice of tasks (and of samples); how far another training seed would move the figure is not in them.
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
    """Which of the two :func:`interval` takes."""
    return WILSON if all(samples == 1 for samples, _ in counts) else BOOTSTRAP


def wilson(passed: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927)."""
    share, weight = passed / total, _Z95**2 / total
    middle = (share + weight / 2) / (1 + weight)
    half = _Z95 / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    # At the ends the formula is exact, and rounding must not put the figure outside its own interval.
    low = 0.0 if passed == 0 else max(0.0, middle - half)
    return low, 1.0 if passed == total else min(1.0, middle + half)
