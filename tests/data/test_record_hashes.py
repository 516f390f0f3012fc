"""Hashes of records: each value counts, the way that rows are cut does not, and scores folders keep them."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.data.reading import open_corpus
from donod_fast.data.reading.record_hashes import record_hash, row_hashes
from donod_fast.data.types import Record

_UTC = datetime.UTC
# Pairs of values of one type that differ as little as they can.
PAIRS: dict[str, tuple[pa.DataType, Any, Any]] = {
    "text": (pa.string(), "a", "a\0"),
    "large text": (pa.large_string(), "ä", "a\u0308"),
    "bytes": (pa.binary(), b"\xff", b"\xfe"),
    "absent": (pa.string(), "", None),
    "whole": (pa.int64(), 2**60, 2**60 + 1),
    "small": (pa.int8(), 0, None),
    "unsigned": (pa.uint64(), 2**64 - 1, 2**64 - 2),
    "float": (pa.float64(), 0.1, np.nextafter(0.1, 1)),
    "zero": (pa.float64(), 0.0, -0.0),
    "half": (pa.float16(), np.float16(1.0), np.float16(1.001)),
    "flag": (pa.bool_(), False, None),
    "decimal": (pa.decimal128(12, 3), decimal.Decimal("1.230"), decimal.Decimal("1.231")),
    "date": (pa.date32(), datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
    "time": (pa.timestamp("ns", "UTC"), datetime.datetime(2026, 1, 1, tzinfo=_UTC), None),
    "microseconds": (pa.time64("us"), datetime.time(0, 0, 0, 1), datetime.time(0, 0, 0, 2)),
    "duration": (pa.duration("ms"), datetime.timedelta(0), datetime.timedelta(milliseconds=1)),
    "list": (pa.list_(pa.int32()), [1, None], [1]),
    "empty list": (pa.list_(pa.string()), [], None),
    "large list": (pa.large_list(pa.string()), ["a", "b"], ["ab"]),
    "vector": (pa.list_(pa.float32(), 2), [1.0, 2.0], [2.0, 1.0]),
    "object": (pa.struct({"a": pa.string(), "b": pa.string()}), {"a": "x", "b": None}, {"a": None, "b": "x"}),
    "object or none": (pa.struct({"a": pa.string()}), {"a": None}, None),
    "map": (pa.map_(pa.string(), pa.int32()), [("a", 1)], [("a", 2)]),
    "category": (pa.dictionary(pa.int8(), pa.string()), "a", "b"),
    "turns": (
        pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        [{"role": "user", "content": "a"}],
        [{"role": "user", "content": "A"}],
    ),
}


def batch(kind: pa.DataType, values: list[Any]) -> pa.RecordBatch:
    return pa.record_batch({"row": pa.array(range(len(values))), "value": pa.array(values, kind)})


@pytest.mark.parametrize("name", PAIRS)
def test_the_smallest_difference_of_a_value_counts(name: str) -> None:
    kind, one, other = PAIRS[name]
    values = [one, other, one, None, other]
    whole = batch(kind, values)
    hashes = row_hashes(whole)
    assert len(set(hashes)) == 5 and {len(one) for one in hashes} == {8}  # the column "row" differs everywhere
    for at, changed in ((0, other), (1, one), (2, other)):
        found = row_hashes(batch(kind, [*values[:at], changed, *values[at + 1 :]]))
        assert [a == b for a, b in zip(found, hashes, strict=True)] == [place != at for place in range(5)]
    for start in range(5):
        for length in range(1, 6 - start):
            assert row_hashes(whole.slice(start, length)) == hashes[start : start + length]


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "half"])
def test_a_file_gives_the_hashes_of_its_rows(name: str) -> None:
    kind, one, other = PAIRS[name]
    table = pa.Table.from_batches([batch(kind, [one, other, None, one] * 5)])
    hashes = {}
    for size in (1, 3, 20):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=size)
        batches = pq.ParquetFile(buffer).iter_batches(batch_size=7)
        hashes[size] = [one for each in batches for one in row_hashes(each)]
    assert hashes[1] == hashes[3] == hashes[20] and len(set(hashes[1])) == 20


def test_names_of_columns_count() -> None:
    one, two = (pa.record_batch({name: pa.array([1, 2])}) for name in ("a", "b"))
    assert set(row_hashes(one)).isdisjoint(row_hashes(two))


def test_text_that_is_not_utf_8_counts() -> None:
    one, two = (pa.record_batch({"a": pa.array([text], pa.binary()).view(pa.string())}) for text in (b"\xff", b"\xfe"))
    assert row_hashes(one) != row_hashes(two)


@given(st.binary(max_size=40), st.integers(0, 39), st.integers(0, 7))
@settings(max_examples=200)
def test_every_bit_of_a_records_own_text_counts(raw: bytes, at: int, bit: int) -> None:
    if at >= len(raw):
        return
    other = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
    for form in ("json", "csv"):
        one, two = (Record(0, "f", "line 1", {"a": "b"}, text, form=form) for text in (raw, other))
        assert record_hash(one) != record_hash(two)


def test_the_names_of_a_sheets_columns_count() -> None:
    hashes = {record_hash(Record(0, "f", "line 2", {name: "1"}, b"1\n", form="csv")) for name in ("a", "b")}
    assert len(hashes) == 2


def test_rows_from_python_are_hashed_by_their_values() -> None:
    records = [Record(0, "<rows>", "record 0", data) for data in ({"a": 1}, {"a": 2}, {"a": None}, {"b": 1}, {"a": 1})]
    hashes = [record_hash(one) for one in records]
    assert hashes[0] == hashes[4] and len(set(hashes)) == 4


def test_the_spelling_of_json_in_a_column_of_a_table_counts(tmp_path: Path) -> None:
    found = []
    for text in ('{"a": 1}', '{"a":1}', '{"a": 1.0}'):
        file = tmp_path / "t.parquet"
        column = pa.ExtensionArray.from_storage(pa.json_(), pa.array([text]))
        pq.write_table(pa.table({"column": column}), file)
        (record,) = open_corpus([str(file)]).records()
        found.append(record_hash(record))
        assert record.data == {"column": json.loads(text)}
    assert len(set(found)) == 3
