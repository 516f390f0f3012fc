"""How a share or a count is divided among groups."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.errors import InputError
from donod_fast.selection.out_of_core.shares import shares


def test_a_fraction_is_taken_of_each_group_by_itself() -> None:
    assert shares(0.3, [100, 10, 5, 1, 0]) == [30, 3, 2, 1, 0]
    assert shares(1.0, [3, 0]) == [3, 0]


def test_a_count_is_divided_in_proportion_and_adds_up() -> None:
    assert shares(10, [50, 30, 20]) == [5, 3, 2]
    # 3.33 each: one row is left, and goes to the larger group, then to the earlier
    assert shares(10, [30, 30, 30]) == [4, 3, 3]
    # 2.4, 1.2, 1.2, 0.2: the largest remainder first
    assert shares(5, [12, 6, 6, 1]) == [3, 1, 1, 0]
    # 0.5 each: one row for two groups
    assert shares(1, [7, 7]) == [1, 0]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 500))
def test_a_count_is_met_exactly_and_no_group_exceeds_its_size(scored: list[int], count: int) -> None:
    given_out = shares(count, scored)
    total = sum(scored)
    assert sum(given_out) == min(count, total)
    for kept, rows in zip(given_out, scored, strict=True):
        assert kept <= rows
        assert not total or abs(kept - min(count, total) * rows / total) < 1


@pytest.mark.parametrize("keep", [0, 0.0, 1.5, -1])
def test_a_share_out_of_range_is_refused(keep: float | int) -> None:
    with pytest.raises(InputError, match="keep as a"):
        shares(keep, [3, 4])
