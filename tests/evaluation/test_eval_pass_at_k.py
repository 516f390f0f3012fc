"""pass@k compared with enumeration of all draws, and the coverage of its intervals."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest

from donod_fast.errors import InputError
from donod_fast.evaluation.passk import BOOTSTRAP, interval, interval_method, mean_pass_at_k, pass_at_k, wilson


def test_pass_at_k_is_the_share_of_draws_with_a_passing_sample() -> None:
    for samples in range(1, 8):
        for passed in range(samples + 1):
            outcomes = [True] * passed + [False] * (samples - passed)
            for k in range(1, samples + 1):
                draws = list(combinations(outcomes, k))
                share = Fraction(sum(map(any, draws)), len(draws))
                assert pass_at_k(samples, passed, k) == pytest.approx(float(share), abs=1e-15)


def test_pass_at_k_is_exact_to_rounding_for_many_samples() -> None:
    for samples, passed, k in ((200, 3, 100), (1000, 1, 10), (1000, 500, 100), (5000, 7, 1000)):
        exact = 1 - Fraction(comb(samples - passed, k), comb(samples, k))
        assert pass_at_k(samples, passed, k) == pytest.approx(float(exact), rel=1e-12)


def test_human_evals_own_example_comes_out_to_the_last_digit() -> None:
    assert mean_pass_at_k([(6, 3)], 1) == 0.4999999999999999


@pytest.mark.parametrize(("samples", "passed", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(samples: int, passed: int, k: int) -> None:
    with pytest.raises(InputError, match="n="):
        pass_at_k(samples, passed, k)


def test_wilson_bounds_solve_the_score_equation() -> None:
    # The definition: |share − p| = z √(p (1 − p) / n) at both ends.
    for passed, total in ((3, 20), (82, 164), (163, 164), (1, 974)):
        for end in wilson(passed, total):
            error = 1.959963984540054 * np.sqrt(end * (1 - end) / total)
            assert abs(passed / total - end) == pytest.approx(error, rel=1e-9)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0


def test_one_sample_a_task_gives_wilsons_interval_and_more_the_bootstraps() -> None:
    ones = [(1, int(at < 30)) for at in range(100)]
    assert interval_method(ones) == "wilson" and interval(ones, 1) == wilson(30, 100)
    many = [(10, at % 11) for at in range(100)]
    assert interval_method(many) == BOOTSTRAP
    low, high = interval(many, 1)
    values = np.array([passed / samples for samples, passed in many])
    error = values.std() / np.sqrt(len(values))  # the normal approximation is an independent estimate
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert interval(many, 1) == (low, high)


def test_an_interval_has_width_if_all_tasks_fail_or_there_is_only_one() -> None:
    assert interval([(10, 0)] * 20, 1) == wilson(0, 20)
    assert interval([(10, 10)] * 20, 5) == wilson(20, 20)
    assert interval([(6, 3)], 1) == (0.0, 1.0)
