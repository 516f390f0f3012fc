"""Columns of a report: exact histograms, and the names that are told apart."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from donod_fast.reports.columns import MOST_CATEGORIES, NO_CATEGORY, OTHERS, category, histogram
from donod_fast.reports.scored_table import Texts

NUMBERS = st.lists(
    st.floats() | st.integers(0, 500).map(float) | st.floats(1e-6, 10) | st.sampled_from([0.0, 1e308, -1e308, 5e-324])
)


@given(NUMBERS)
def test_a_histogram_counts_each_finite_value_once(values: list[float]) -> None:
    found = histogram(np.array(values, np.float64))
    finite = [value for value in values if np.isfinite(value)]
    edges, counts = found["edges"], found["counts"]
    assert found["missing"] == len(values) - len(finite)
    assert len(edges) == len(counts) + 1 and all(a < b for a, b in itertools.pairwise(edges))
    assert all(map(np.isfinite, edges))
    wanted = Counter(min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1) for value in finite)
    assert counts == [wanted[at] for at in range(len(counts))]
    if finite:
        assert (found["low"], found["high"]) == (min(finite), max(finite))
        assert edges[0] <= min(finite) and max(finite) <= edges[-1]


@given(st.lists(st.integers(0, 3000), min_size=2))
def test_whole_numbers_never_share_a_bin_in_part(values: list[int]) -> None:
    found = histogram(np.array(values, np.float64))
    if not found["log"] and min(values) < max(values):
        assert all(edge % 1 == 0.5 for edge in found["edges"])
        assert len({b - a for a, b in zip(found["edges"], found["edges"][1:], strict=False)}) == 1


def test_a_skewed_positive_column_has_a_logarithmic_axis() -> None:
    draw = np.random.default_rng(0)
    assert histogram(np.exp(draw.normal(0, 3, 1000)))["log"]
    assert not histogram(draw.normal(0, 3, 1000))["log"]
    assert not histogram(draw.uniform(1, 2, 1000))["log"]


@given(st.lists(st.one_of(st.none(), st.integers(0, 300).map(lambda n: f"s{n}")), max_size=400))
def test_rare_names_are_one_category_and_no_row_is_lost(names: list[str | None]) -> None:
    distinct = list(dict.fromkeys(names))
    found = category(Texts(np.array([distinct.index(name) for name in names], np.int32), distinct))
    counts = Counter(name for name in names if name is not None)
    assert len(found.names) <= MOST_CATEGORIES
    if len(counts) <= MOST_CATEGORIES:
        assert OTHERS not in found.names
    assert sum(found.counts) == sum(counts.values())
    assert found.counts == [int((found.codes == at).sum()) for at in range(len(found.names))]
    for name, code in zip(names, found.codes.tolist(), strict=True):
        if name is None:
            assert code == NO_CATEGORY
        elif found.values[code] is not None:
            assert found.values[code] == name and found.counts[code] == counts[name]
        else:
            assert found.names[code] == OTHERS and counts[name] <= min(found.counts[:code], default=0)


@pytest.mark.parametrize("name", ["(other)", "a\x00b", "\u202ereversed", "<script>", ""])
def test_a_strange_name_is_shown_by_its_characters(name: str) -> None:
    found = category(Texts(np.array([0, 1], np.int32), [name, "plain"]))
    assert found.values[found.names.index("plain")] == "plain"
    assert not any(ord(character) < 32 or character == "\u202e" for one in found.names for character in one)
