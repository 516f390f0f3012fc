"""Warnings about a subset that is not like its corpus: never of random draws, always of extreme subsets."""

from __future__ import annotations

import numpy as np
import pytest

from donod_fast.errors import InputError
from donod_fast.selection.representation import (
    FAR_LENGTH,
    FAR_MIX,
    Moments,
    distance_of,
    length_warning,
    mix_warning,
)


@pytest.mark.parametrize("count", [3, 30, 300, 3000])
def test_random_draws_are_hardly_ever_warned_about(count: int) -> None:
    draw = np.random.default_rng(count)
    tokens = draw.lognormal(5, 1, 5000).astype(np.int32)
    groups = draw.choice(4, 5000, p=[0.7, 0.2, 0.07, 0.03])
    lengths = mixes = 0
    for _ in range(300):
        rows = draw.choice(5000, count, replace=False)
        lengths += length_warning(tokens, tokens[rows]) is not None
        mixes += mix_warning(groups, groups[rows], ["a", "b", "c", None]) is not None
    assert lengths <= 9 and mixes <= 9  # of 300; means of few long-tailed lengths are not quite normal


def test_long_and_short_subsets_are_told_apart() -> None:
    tokens = np.arange(1, 1001)
    assert "longer than the corpus: 950 tokens" in (length_warning(tokens, tokens[-100:]) or "")
    assert "shorter than the corpus" in (length_warning(tokens, tokens[:100]) or "")
    assert length_warning(tokens, tokens) is None
    assert length_warning(tokens, []) is None
    assert length_warning([], []) is None


@pytest.mark.parametrize("factor", [1 + FAR_LENGTH - 0.01, 1 + FAR_LENGTH + 0.01])
def test_a_sure_difference_must_be_large_too(factor: float) -> None:
    tokens = np.r_[np.full(50_000, 100), np.full(50_000, round(100 * (2 * factor - 1)))]
    halves = Moments.of(tokens).mean / 100
    kept = np.full(10_000, round(100 * halves * factor))
    assert (length_warning(tokens, kept) is not None) == (factor > 1 + FAR_LENGTH)


def test_few_rows_that_differ_by_chance_are_no_reason() -> None:
    tokens = np.r_[np.full(500, 10), np.full(500, 1000)]
    assert length_warning(tokens, [1000] * 29) is None
    assert length_warning(tokens, [1000] * 22 + [10] * 8) is None
    assert mix_warning([0] * 500 + [1] * 500, [0] * 29, ["a", "b"]) is None
    assert mix_warning([0] * 500 + [1] * 500, [0] * 19 + [1] * 11, ["a", "b"]) is None


def test_the_mix_names_the_groups_that_moved_most() -> None:
    said = mix_warning([0] * 600 + [1] * 300 + [2] * 100, [0] * 100 + [1] * 0 + [2] * 100, ["a", "b", None], "source")
    assert said is not None
    assert "mix source" in said and "(none) 50.0 % instead of 10.0 %" in said and "b 0.0 % instead of 30.0 %" in said
    assert "distance 0.400" in said


def test_a_distance_within_the_limit_is_no_reason() -> None:
    everything = [0] * 50_000 + [1] * 50_000
    near, far = (round(10_000 * (0.5 + FAR_MIX + step)) for step in (-0.005, 0.005))
    for kept, warned in ((near, False), (far, True)):
        assert (mix_warning(everything, [0] * kept + [1] * (10_000 - kept), ["a", "b"]) is not None) == warned


def test_the_distance_is_half_the_sum_of_differences() -> None:
    assert distance_of(np.array([1, 1, 0]), np.array([0, 0, 5])) == 1
    assert distance_of(np.array([1, 3]), np.array([2, 2])) == 0.25
    assert distance_of(np.array([1, 3]), np.array([0, 0])) == 0


def test_groups_that_are_no_positions_are_refused() -> None:
    with pytest.raises(InputError, match="positions from 0 to 1"):
        mix_warning([0, 2], [0], ["a", "b"])
