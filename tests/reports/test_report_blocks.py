"""Blocks of a report: what is packed is what a browser unpacks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_blocks import content_of

from donod_fast.errors import InputError
from donod_fast.reports.blocks import array_block, json_block, number_block, number_kind, refuse_large, size_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_with_null_for_what_json_lacks(value: object) -> None:
    def plain(one: object) -> object:
        if isinstance(one, float):
            return one if math.isfinite(one) else None
        if isinstance(one, dict):
            return {key: plain(inner) for key, inner in one.items()}
        return [plain(inner) for inner in one] if isinstance(one, list) else one

    block = json_block("meta", value)
    assert content_of(block) == plain(value)
    assert not set(block.text) & set("<>&\"' \n")


@given(st.lists(st.floats(), max_size=50))
def test_few_numbers_keep_every_digit(values: list[float]) -> None:
    wanted = np.array(values, np.float64)
    assert np.array_equal(content_of(number_block("c0", wanted)).astype(np.float64), wanted, equal_nan=True)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (3.0, "u16"),
        (70_000.0, "u32"),
        (0.5, "f32"),
        (math.nan, "f32"),
        (math.inf, "f32"),
        (2.0**32, "f32"),
        (1e300, "f64"),
        (-1e-300, "f64"),
    ],
)
def test_many_numbers_are_small_where_their_range_allows(first: float, kind: str) -> None:
    values = np.zeros(60_000)
    values[0] = first
    assert number_kind(values) == kind
    found = content_of(number_block("c0", values))
    assert found.dtype.itemsize == int(kind[1:]) // 8
    assert np.array_equal(found[:1].astype(np.float64), [first], equal_nan=True)


def test_the_size_of_blocks_is_no_less_than_their_page() -> None:
    blocks = [array_block(f"r{at}", "u32", np.arange(1000)) for at in range(3)]
    page = "".join(
        f'<script type="application/x-donod" data-name="{one.name}" data-kind="{one.kind}">{one.text}</script>\n'
        for one in blocks
    )
    assert len(page) <= size_of(blocks)


def test_a_page_that_is_too_large_is_refused_with_a_remedy() -> None:
    refuse_large(10**6, 10**6)
    with pytest.raises(InputError, match="--max-mb 1; raise it, lower --sample"):
        refuse_large(10**6 + 1, 10**6)
