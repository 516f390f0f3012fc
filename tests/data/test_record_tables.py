"""Records written as Parquet come back exactly, whatever their values."""

from __future__ import annotations

import io
import json
import math
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.data.column_types import ColumnShape
from donod_fast.data.reading.arrow_values import python_rows
from donod_fast.data.record_tables import write_parquet
from donod_fast.data.types import Record
from donod_fast.errors import InputError

KEYS = ["a", "b", "", "é", "c.d", "\ud800", "\0"]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([2**53 + 1, 2**63, -(2**63) - 1, 10**40, 0.5, -0.0, float("nan"), float("inf"), 1e300]),
    st.sampled_from(["", "x", "é\0", "\ud800", "null", '{"a": 1}']),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
uniform = st.sampled_from(
    [
        st.lists(st.none() | st.integers(), max_size=2),
        st.fixed_dictionaries(
            {"role": st.text(max_size=2), "content": st.text(max_size=2)}, optional={"n": st.floats()}
        ),
        st.floats(),
        st.integers(-(2**63), 2**64 - 1),
        st.lists(st.fixed_dictionaries({"f": st.fixed_dictionaries({"x": st.booleans()})}), max_size=2),
    ]
)
records = st.lists(
    st.dictionaries(st.sampled_from(["id", "c.d", "", "é\0", "m"]), values, max_size=3), min_size=1, max_size=4
) | uniform.flatmap(lambda kind: st.lists(st.fixed_dictionaries({}, optional={"m": kind, "n": kind}), max_size=4))


def exact(value: Any) -> str:
    """A text that tells 1 from 1.0 and True, and one order of keys from another."""
    return repr(value)


def written(data: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], pa.Schema, tuple[str, ...]]:
    """What comes back from a file of these records, its schema, and its columns of JSON text."""
    file = io.BytesIO(b"before")
    file.seek(6)
    names = write_parquet(lambda: (Record(at, "a", f"line {at}", row) for at, row in enumerate(data)), file)
    table = pq.ParquetFile(io.BytesIO(file.getvalue()[6:]))
    rows = [row for batch in table.iter_batches(2) for row in python_rows(batch)]
    return rows, table.schema_arrow, names


@settings(max_examples=300, deadline=None)
@given(records)
def test_records_come_back_with_values_types_and_order_of_keys(data: list[dict[str, Any]]) -> None:
    if not any(data):
        return
    rows, schema, names = written(data)
    order = {name: at for at, name in enumerate(dict.fromkeys(name for row in data for name in row))}
    assert schema.names == list(order)
    promoted = {name for name in order if name not in names and schema.field(name).type == pa.float64()}
    for row, found in zip(data, rows, strict=True):
        right = {name: row[name] for name in sorted(row, key=order.__getitem__) if row[name] is not None}
        floats = {name: float(value) if name in promoted else value for name, value in right.items()}
        assert exact(found) == exact(floats)
        assert all(math.isnan(right[name]) or right[name] == found[name] for name in promoted if name in right)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ([1, None, 2], pa.int64()),
        ([2**64 - 1, 0], pa.uint64()),
        ([1, 0.5], pa.float64()),
        (["a"], pa.string()),
        ([[1, None], []], pa.list_(pa.int64())),
        ([[]], pa.list_(pa.null())),
        ([{"b": 1}, {"a": "x", "b": 2}], pa.struct([("a", pa.string()), ("b", pa.int64())])),
        (
            [[{"role": "u", "name": "n"}], [{"role": "a"}]],
            pa.list_(pa.struct([("role", pa.string()), ("name", pa.string())])),
        ),
        ([{"f": {"a": 1}}, {"f": {"a": 2}}], pa.struct([("f", pa.struct([("a", pa.int64())]))])),
        ([{"f": {"a": 1}}, {"f": {"b": 2}}], None),  # tool arguments, schemas: other readers would see nulls
        ([{"a": None}], None),
        ([{"a": 1, "b": 2}, {"b": 1, "a": 2}], None),
        ([[1, 0.5]], None),
        ([2**53 + 1, 0.5], None),
        ([-(2**53), 0.5], pa.float64()),
        ([{str(at): at} for at in range(300)], None),
        ([json.loads("[" * 30 + "]" * 30)], None),
    ],
)
def test_a_type_is_chosen_only_if_it_is_exact(data: list[Any], kind: pa.DataType | None) -> None:
    shape = ColumnShape()
    for value in data:
        shape.add(value)
    assert shape.arrow_type() == kind


def test_a_column_name_that_parquet_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"row 1 \(a, line 1\).*name of the column .*\.jsonl"):
        written([{"a": 1}, {"\ud800": 1}])


def test_types_do_not_depend_on_the_order_of_the_records() -> None:
    data = [{"m": {"x": 1, "y": [1]}}, {"m": {"y": [], "z": "t"}}, {"m": {"x": 2, "z": "u"}}, {"m": None}]
    schemas = set()
    for seed in range(6):
        draw = random.Random(seed)
        rows, schema, names = written(draw.sample(data, 4))
        assert names == () and len(rows) == 4
        schemas.add(tuple(sorted(str(field) for field in schema.field("m").type)))
    assert len(schemas) == 1
