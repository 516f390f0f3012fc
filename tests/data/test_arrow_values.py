"""Arrow arrays become the values of records: nulls of structs left out, nothing lost."""

from __future__ import annotations

import datetime
import json
import random
from typing import Any

import pyarrow as pa
import pytest
from arrow_tables import NS, array_of, drawn_type, or_null

from donod_fast.data.reading.arrow_values import EXTENSION, python_rows, python_values


def right(value: Any, kind: pa.DataType) -> Any:
    """What a record holds of a value in Arrow's own Python form."""
    if value is None:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        return json.loads(value)
    if pa.types.is_struct(kind):
        fields = {field.name: right(value[field.name], field.type) for field in kind}
        return {name: item for name, item in fields.items() if item is not None}
    if pa.types.is_map(kind):
        return {key: right(item, kind.item_type) for key, item in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [right(item, kind.value_type) for item in value]
    if getattr(kind, "unit", None) == "ns":
        return nanoseconds(pa.scalar(value, kind).cast(pa.int64()).as_py(), kind)
    return value


def nanoseconds(value: int, kind: pa.DataType) -> str:
    """A value with nanoseconds as text, by way of Arrow's own text of UTC."""
    if pa.types.is_duration(kind):
        return f"PT{value // 10**9}.{value % 10**9:09d}".rstrip("0").rstrip(".") + "S"
    text = str(pa.scalar(value, pa.timestamp("ns")).cast(pa.string()).as_py())
    if pa.types.is_time(kind):
        return text[11:]
    zone = datetime.timedelta(hours=5, minutes=30) if kind.tz else datetime.timedelta()
    moment = datetime.datetime.fromisoformat(text[:19]) + zone
    return f"{moment.isoformat()}{text[19:]}" + ("+05:30" if kind.tz else "")


@pytest.mark.parametrize("seed", range(60))
def test_values_of_every_type_and_slice_are_those_of_arrow(seed: int) -> None:
    draw = random.Random(seed)
    kind, values = drawn_type(draw)
    given = [or_null(draw, values) for _ in range(9)]
    if isinstance(kind, pa.BaseExtensionType):
        array: Any = pa.ExtensionArray.from_storage(kind, pa.array(given, kind.storage_type))
    else:
        array = array_of(given, kind)
    for begin, length in ((0, 9), (2, 4), (8, 1), (3, 0)):
        part = array.slice(begin, length)
        assert repr(python_values(part)) == repr([right(value, kind) for value in part.to_pylist()])


def test_nulls_of_lists_and_maps_stay_and_those_of_structs_go() -> None:
    kind = pa.struct(
        [("a", pa.list_(pa.int8())), ("b", pa.map_(pa.string(), pa.int8())), ("c", pa.struct([("d", pa.int8())]))]
    )
    rows = [{"a": [None, 1], "b": [("k", None)], "c": {"d": None}}, {"a": None, "b": None, "c": None}, None]
    batch = pa.record_batch([pa.array(rows, kind), pa.array([None, None, 1])], names=["x", "y"])
    assert python_rows(batch) == [{"x": {"a": [None, 1], "b": {"k": None}, "c": {}}}, {"x": {}}, {"y": 1}]


def test_a_map_becomes_an_object_only_if_its_keys_are_texts_that_differ() -> None:
    texts = pa.array([[("k", 1), ("l", 2)], [("k", 1), ("k", 2)], [], None], pa.map_(pa.string(), pa.int8()))
    assert python_values(texts) == [{"k": 1, "l": 2}, [["k", 1], ["k", 2]], {}, None]
    numbers = pa.array([[(1, "a")]], pa.map_(pa.int8(), pa.string()))
    assert python_values(numbers) == [[[1, "a"]]]


def test_json_text_is_decoded_also_where_the_type_is_known_by_name_only() -> None:
    texts = pa.array(['{"a":null,"n":12345678901234567890123}', None, "no JSON", "NaN"])
    wanted = [{"a": None, "n": 12345678901234567890123}, None, "no JSON", float("nan")]
    assert repr(python_values(pa.ExtensionArray.from_storage(pa.json_(), texts))) == repr(wanted)
    assert repr(python_values(texts, {EXTENSION: b"arrow.json"})) == repr(wanted)
    assert python_values(texts, {EXTENSION: b"another"}) == texts.to_pylist()


def test_times_with_nanoseconds_keep_every_digit() -> None:
    for zone, text in ((None, ""), ("Europe/Berlin", "+01:00"), ("-00:30", "-00:30")):
        (found,) = python_values(pa.array([NS], pa.timestamp("ns", zone)))
        assert found[19:] == ".123456789" + text
    assert python_values(pa.array([-1], pa.timestamp("ns"))) == ["1969-12-31T23:59:59.999999999"]
    assert python_values(pa.array([-1_500_000_000, 0], pa.duration("ns"))) == ["-PT1.5S", "PT0S"]
