"""95 % intervals of accuracies: Wilson's for a share of items, bootstrap over items for what is made of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from donod_fast.evaluation.harness.groups import averages
from donod_fast.evaluation.passk import DRAWS, wilson

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Share:
    """A share of items.

    Attributes:
        passed: items that pass.
        total: all items, at least one.
    """

    passed: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.passed / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.passed, self.total)


def averages_interval(sets: Mapping[str, Share], seed: int = 0) -> dict[str, dict[str, tuple[float, float]]]:
    """Intervals of :func:`.groups.averages`, from a bootstrap over the items of each set.

    Args:
        sets: the share of each set.
        seed: seed of the draws.

    Returns:
        the intervals of ``groups`` and of ``non_target``, by name. They cover the choice of questions only. Where all
        questions of all sets of a figure are right, or all wrong, the bootstrap has nothing to resample; the ends are
        the means of the ends of Wilson's intervals.
    """
    rng = np.random.default_rng(seed)
    # Drawing n items of a set with replacement gives a binomial number of right ones.
    drawn = {name: rng.binomial(one.total, one.value, DRAWS) / one.total for name, one in sets.items()}
    found: dict[str, dict[str, tuple[float, float]]] = {"groups": {}, "non_target": {}}
    ends = [averages({name: one.interval[end] for name, one in sets.items()}) for end in (0, 1)]
    some = averages(drawn)
    for kind, intervals in found.items():
        for name, values in some[kind].items():
            low, high = np.percentile(values, [2.5, 97.5])
            intervals[name] = (float(low), float(high)) if low < high else (ends[0][kind][name], ends[1][kind][name])
    return found


def ratio_interval(passed: Sequence[int], totals: Sequence[int], seed: int = 0) -> tuple[float, float]:
    """Interval of Σ passed / Σ totals over prompts of several instructions, from a bootstrap over the prompts.

    If all instructions pass or none does, the bootstrap has nothing to resample, and the interval is Wilson's.
    """
    some, every = np.asarray(passed), np.asarray(totals)
    if some.sum() in (0, every.sum()):
        return wilson(int(some.sum()), int(every.sum()))
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(DRAWS // _AT_ONCE):
        places = rng.integers(0, len(some), (_AT_ONCE, len(some)))
        ratios.append(some[places].sum(1) / every[places].sum(1))
    low, high = np.percentile(np.concatenate(ratios), [2.5, 97.5])
    return float(low), float(high)


__all__ = ["Share", "averages_interval", "ratio_interval"]
