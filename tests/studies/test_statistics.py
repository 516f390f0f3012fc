"""Statistics of the studies, compared with brute force, closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from donod_fast.errors import InputError
from donod_fast.studies.core.statistics import Estimate, auc, mean_interval, overlap, proportion
from donod_fast.studies.threshold.intervals import paired, pooled, pooled_share, verdict


def brute_force_auc(higher: np.ndarray, lower: np.ndarray) -> float:
    return float(np.mean([(a > b) + 0.5 * (a == b) for a in higher for b in lower]))


def test_auc_is_the_share_of_pairs_in_order_with_ties_as_half() -> None:
    random = np.random.default_rng(0)
    for m, n in ((2, 3), (7, 5), (30, 40)):
        for spread in (3, 1000):  # few values: many ties
            higher, lower = random.integers(0, spread, m), random.integers(0, spread, n)
            assert auc(higher, lower).value == pytest.approx(brute_force_auc(higher, lower), abs=1e-12)


def test_auc_of_swapped_groups_is_the_rest_to_one_with_mirrored_bounds() -> None:
    random = np.random.default_rng(1)
    higher, lower = random.normal(0.5, 1, 40), random.normal(0, 1, 30)
    one, other = auc(higher, lower), auc(lower, higher)
    assert one.value == pytest.approx(1 - other.value)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))


def test_the_interval_of_auc_has_its_nominal_coverage() -> None:
    random = np.random.default_rng(2)
    truth = 0.7602499389  # P(X > Y) of N(1, 1) and N(0, 1): Φ(1/√2)
    hits = [
        estimate.low <= truth <= estimate.high
        for _ in range(400)
        for estimate in [auc(random.normal(1, 1, 40), random.normal(0, 1, 25))]
    ]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_complete_separation_has_a_one_sided_interval() -> None:
    found = auc([2.0, 3.0, 4.0], [0.0, 1.0])
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.05 ** (1 / 2))
    assert auc([0.0, 1.0], [2.0, 3.0, 4.0]) == Estimate(0.0, 0.0, pytest.approx(1 - 0.05 ** (1 / 2)))


def test_a_proportion_has_wilsons_interval_at_any_confidence() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for passed, total, confidence in ((15, 50, 0.95), (0, 10, 0.95), (7, 7, 0.9), (3, 40, 0.99)):
        expected = scipy_stats.binomtest(passed, total).proportion_ci(confidence, method="wilson")
        found = proportion(passed, total, confidence=confidence)
        assert found == pytest.approx((passed / total, expected.low, expected.high), abs=1e-12)
    with pytest.raises(InputError, match="got 0 of 0"):
        proportion(0, 0)


def test_mean_over_seeds_has_students_interval_and_one_seed_none() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(4.302652729 / math.sqrt(3))  # t with 2 degrees of freedom
    assert mean_interval([5.0]) == Estimate(5.0, -math.inf, math.inf)


def test_overlap_is_a_share_of_the_first() -> None:
    assert overlap([1, 2, 3, 4], [3, 4, 5]) == 0.5
    with pytest.raises(InputError, match="empty"):
        overlap([], [1])


@pytest.mark.parametrize("call", [lambda: auc([], [1.0]), lambda: auc([math.nan], [1.0]), lambda: mean_interval([])])
def test_nothing_and_nan_are_refused(call: object) -> None:
    with pytest.raises(InputError, match="none of them NaN"):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("of_seeds", "of_tasks"), [(0.0, 1.5), (0.3, 1.0), (0.5, 0.0)])
def test_the_pooled_interval_has_its_nominal_coverage(seeds: int, of_seeds: float, of_tasks: float) -> None:
    random = np.random.default_rng(3)
    logits = 0.5 + random.normal(0, math.hypot(of_seeds, of_tasks) or 1e-9, 400_000)
    truth = float((1 / (1 + np.exp(-logits))).mean())
    hits = []
    for _ in range(300):
        logits = 0.5 + random.normal(0, of_seeds, (seeds, 1)) + random.normal(0, of_tasks, (1, 120))
        found = pooled_share(random.random((seeds, 120)) < 1 / (1 + np.exp(-logits)))
        hits.append(found.low <= truth <= found.high)
    assert 0.90 <= np.mean(hits) <= 0.995


def test_the_pooled_interval_of_equal_seeds_is_that_over_tasks() -> None:
    tasks = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    one, many = pooled(tasks[None]), pooled(np.repeat(tasks[None], 4, axis=0))
    assert many.value == one.value
    assert many.high - many.low == pytest.approx(one.high - one.low)


def test_paired_differences_see_what_two_intervals_cannot() -> None:
    first = np.tile(np.arange(200) < 100, (2, 1)).astype(float)
    second = np.tile((np.arange(200) < 90) | (np.arange(200) == 199), (2, 1)).astype(float)  # 10 lost, one won
    gap = paired(first, second)
    assert verdict(gap) == "better"
    assert verdict(gap, higher_is_better=False) == "worse"
    one, other = pooled_share(first), pooled_share(second)
    assert one.low < other.high, "the intervals of the two overlap"
    assert verdict(paired(first, first)) == "no difference"


def test_none_or_all_solved_has_an_interval_all_the_same() -> None:
    assert pooled_share(np.zeros((3, 50))) == proportion(0, 50)
    assert pooled_share(np.ones((3, 50))).low < 0.95


def test_shares_of_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="same seeds and tasks"):
        paired(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(InputError, match="a matrix"):
        pooled(np.zeros(3))
