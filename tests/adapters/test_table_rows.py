"""Columns of a host's table become the records that a corpus file would hold."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.adapters.table_rows import check_columns, plain, table_rows
from donod_fast.data.column_map import ColumnMap
from donod_fast.errors import InputError

VALUES = st.recursive(
    st.one_of(st.none(), st.text(max_size=5), st.integers(), st.booleans(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


class Wrapped(dict):  # type: ignore[type-arg]
    """A dict that answers other than it holds, as hosts' do."""

    def __getitem__(self, key: object) -> object:
        return "wrapped"


def wrapped(value: object) -> object:
    if isinstance(value, dict):
        return Wrapped({key: wrapped(one) for key, one in value.items()})
    return [wrapped(one) for one in value] if isinstance(value, list) else value


@given(VALUES)
@settings(deadline=None)
def test_wrapped_values_become_the_plain_ones(value: object) -> None:
    assert plain(wrapped(value)) == value


def test_values_of_numpy_and_absent_numbers_become_plain() -> None:
    row = {"a": np.int64(3), "b": np.array([1.5, np.nan]), "c": float("nan"), "d": np.bool_(True)}
    assert plain(row) == {"a": 3, "b": [1.5, None], "c": None, "d": True}
    assert type(plain(np.int64(3))) is int and type(plain(np.bool_(True))) is bool


@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=5))
@settings(deadline=None)
def test_columns_become_rows_without_those_of_the_host(rows) -> None:
    columns = {
        "x": [row[0] for row in rows],
        "y": [row[1] for row in rows],
        "__own__stats": [{}] * len(rows),
        "donod_status": ["scored"] * len(rows),
    }
    assert table_rows(columns, but="__own__") == [{"x": row[0], "y": row[1]} for row in rows]


def test_an_absent_column_is_named_with_its_role_and_a_suggestion(caplog) -> None:
    present = ("instruction", "output")
    check_columns(None, present)
    check_columns(ColumnMap.parse("prompt=instruction,response=output"), present)
    with pytest.raises(InputError, match=r"no column 'outptu' \(mapped to response; did you mean 'output'\?\); it has"):
        check_columns(ColumnMap.parse("prompt=instruction,response=outptu"), present)
    with caplog.at_level(logging.WARNING):
        check_columns(ColumnMap.parse("prompt=instruction,response=output,system=sys"), present)
    assert "no column 'sys', which is mapped to system" in caplog.text
