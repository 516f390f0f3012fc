"""A subset of Parquet files and datasets has the schema and the values of Arrow's ``take``."""

from __future__ import annotations

import decimal
import json
import random
from pathlib import Path
from typing import Literal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from arrow_tables import NS, drawn_table
from stored_records import old

from donod_fast.data import source_tables
from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.targets import refuse_suffix
from donod_fast.errors import CorpusError, InputError
from donod_fast.scores.exporting import refuse_export_name
from donod_fast.selection.out_of_core.row_set import RowSet
from donod_fast.selection.subset import Subset, subset_file, write_subset


def assert_taken(out: Path, source: pa.Table, rows: list[int]) -> None:
    found, right = pq.read_table(out), source.take(pa.array(rows))
    assert found.schema.equals(right.schema, check_metadata=True), (found.schema, right.schema)
    found.validate(full=True)
    assert found.to_pylist() == right.to_pylist()  # Table.equals takes some equal dictionaries in lists for different


@pytest.mark.parametrize("seed", range(40))
def test_a_subset_of_parquet_is_the_take_of_its_table(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_tables, "GROUP_ROWS", 5)
    draw = random.Random(seed)
    table = drawn_table(draw, 12)
    paths = []
    for at, (begin, end) in enumerate(((0, 7), (7, 12))):
        pq.write_table(table.slice(begin, end - begin), tmp_path / f"{at}.parquet", row_group_size=3)
        paths.append(old(tmp_path / f"{at}.parquet"))
    source = pa.concat_tables([pq.read_table(path) for path in paths])  # as Parquet gives it back
    corpus = open_corpus([str(path) for path in paths])
    assert [record.problem for record in corpus.records()] == [None] * 12
    rows = draw.sample(range(12), draw.randint(1, 12))
    for order, right in (("input", sorted(rows)), ("best", rows)):
        out = tmp_path / f"{order}.parquet"
        assert subset_file(corpus, rows, out, order=order) == Subset(len(rows))  # type: ignore[arg-type]
        assert_taken(out, source, right)
    for suffix in (".jsonl", ".json"):  # nothing stops a select
        write_subset(corpus, rows, tmp_path / f"text{suffix}")
        assert open_corpus([str(old(tmp_path / f"text{suffix}"))]).rows == len(rows)


def test_values_that_python_lacks_are_read_and_written_without_loss(tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": ["Two and two?", "Three?"],
            "hash": pa.array([17915699055171962696, 5], pa.uint64()),
            "at": pa.array([NS, None], pa.timestamp("ns")),
            "zoned": pa.array([NS, NS], pa.timestamp("ns", "Europe/Berlin")),
            "map": pa.array([[("k", 1)], [("k", 1), ("k", None)]], pa.map_(pa.string(), pa.int32())),
            "price": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(10, 2)),
            "bytes": pa.array([b"\x00\xff", b""], pa.binary()),
            "ratio": [float("nan"), float("-inf")],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    corpus = open_corpus([str(old(tmp_path / "a.parquet"))])
    write_subset(corpus, [0, 1], tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_text().splitlines() == [
        '{"question":"Two and two?","hash":17915699055171962696,"at":"2023-11-14T22:13:20.123456789",'
        '"zoned":"2023-11-14T23:13:20.123456789+01:00","map":{"k":1},"price":"1.10","bytes":"AP8=","ratio":NaN}',
        '{"question":"Three?","hash":5,"zoned":"2023-11-14T23:13:20.123456789+01:00","map":[["k",1],["k",null]],'
        '"bytes":"","ratio":-Infinity}',
    ]
    write_subset(corpus, [0, 1], tmp_path / "o.parquet")
    assert str(pq.read_table(tmp_path / "o.parquet").to_pylist()) == str(table.to_pylist())


def test_a_saved_dataset_keeps_its_features_and_values(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "question": datasets.Value("large_string"),
            "kind": datasets.ClassLabel(names=["a", "b"]),
            "picture": datasets.Image(),
            "any": datasets.Json(),
            "size": datasets.Value("int16"),
        }
    )
    picture = {"bytes": b"\x89PNG not decoded", "path": None}
    data = [
        {"question": f"q{at}", "kind": at % 2, "picture": picture, "any": [{"b": 1, "a": None}, at], "size": at}
        for at in range(5)
    ]
    dataset = datasets.Dataset.from_list(data, features=features)
    datasets.disable_progress_bars()
    dataset.save_to_disk(str(tmp_path / "saved"))
    datasets.enable_progress_bars()
    corpus = open_corpus([str(tmp_path / "saved")])
    assert next(corpus.records(1)).data == {**data[1], "picture": {"bytes": picture["bytes"]}}
    write_subset(corpus, [3, 1], tmp_path / "o.parquet", order="best")
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.schema.equals(features.arrow_schema, check_metadata=True)
    assert found.equals(dataset.with_format("arrow")[:].take(pa.array([3, 1])).cast(features.arrow_schema))
    again = datasets.Dataset.from_parquet(str(tmp_path / "o.parquet"), cache_dir=str(tmp_path / "cache"))
    assert again.features == features and again["any"][0] == [{"b": 1, "a": None}, 3]


DIFFERENT = {
    "the column 'n' is only in the first": pa.table({"q": ["a"]}),
    "the column 'm' is only in the second": pa.table({"q": ["a"], "n": [1], "m": [1]}),
    "the columns are in another order": pa.table({"n": [1], "q": ["a"]}),
    "the column 'n' is int64 in one, double in the other": pa.table({"q": ["a"], "n": [1.0]}),
    "the column 'n' may be null in only one": pa.table(
        [["a"], [1]], schema=pa.schema([("q", pa.string()), pa.field("n", pa.int64(), nullable=False)])
    ),
    "the metadata of the column 'n' differ": pa.table(
        [["a"], [1]], schema=pa.schema([("q", pa.string()), pa.field("n", pa.int64(), metadata={"a": "b"})])
    ),
    "the metadata 'huggingface' differ": pa.table({"q": ["a"], "n": [1]}).replace_schema_metadata(
        {"huggingface": "{}"}
    ),
}


@pytest.mark.parametrize("difference", DIFFERENT)
def test_schemas_that_differ_are_refused_by_name(tmp_path: Path, difference: str) -> None:
    pq.write_table(pa.table({"q": ["a"], "n": [1]}), tmp_path / "a.parquet")
    pq.write_table(DIFFERENT[difference], tmp_path / "b.parquet")
    corpus = open_corpus([str(old(tmp_path / f"{name}.parquet")) for name in "ab"])
    with pytest.raises(InputError) as caught:
        write_subset(corpus, [0, 1], tmp_path / "o.parquet")
    for said in (difference, "a.parquet and ", "b.parquet have different schemas", "ends in .jsonl"):
        assert said in str(caught.value)
    assert not (tmp_path / "o.parquet").exists()
    assert write_subset(corpus, [0, 1], tmp_path / "o.jsonl") == 2


def test_objects_without_keys_are_refused_by_name(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"q": "a", "tools": [{"name": "f", "parameters": {}}]}])
    rows.save_to_disk(str(tmp_path / "saved"))
    corpus = open_corpus([str(tmp_path / "saved")])
    for refuse in (refuse_suffix, refuse_export_name):
        with pytest.raises(InputError, match=r"no Parquet file can hold the column 'tools' .*ends in \.jsonl"):
            refuse(tmp_path / "o.parquet", corpus.sources)
    assert write_subset(corpus, [0], tmp_path / "o.jsonl") == 1


def test_tables_and_lines_together_go_through_records(tmp_path: Path) -> None:
    pq.write_table(pa.table({"q": ["a"], "meta": [{"x": 1, "y": None}]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"q": "b", "meta": "none"}\n')
    corpus = open_corpus([str(old(tmp_path / "a.parquet")), str(old(tmp_path / "b.jsonl"))])
    assert subset_file(corpus, [0, 1], tmp_path / "o.parquet").json_columns == ("meta",)
    assert [record.data for record in open_corpus([str(old(tmp_path / "o.parquet"))]).records()] == [
        {"q": "a", "meta": {"x": 1}},
        {"q": "b", "meta": "none"},
    ]


def test_matrices_are_taken_from_the_middle_of_a_file(tmp_path: Path) -> None:
    kind = pa.list_(pa.list_(pa.uint16(), 2), 2)  # Arrow's take from a slice of these is wrong
    values = [[[at, at + 1], [at + 2, at + 3]] for at in range(0, 80, 4)]
    pq.write_table(pa.table({"q": ["a"] * 20, "m": pa.array(values, kind)}), tmp_path / "a.parquet")
    corpus = open_corpus([str(old(tmp_path / "a.parquet"))])
    for order, rows in (("input", [7, 9, 12]), ("best", [12, 7, 9])):
        write_subset(corpus, rows, tmp_path / f"{order}.parquet", order=order)  # type: ignore[arg-type]
        assert pq.read_table(tmp_path / f"{order}.parquet")["m"].to_pylist() == [values[row] for row in rows]


def test_a_set_of_rows_and_a_dataset_from_python_are_taken_too(tmp_path: Path) -> None:
    import datasets

    dataset = datasets.Dataset.from_dict({"q": [str(at) for at in range(2000)]})
    chosen = RowSet(2000)
    chosen.add(torch.arange(1, 2000, 3))
    assert write_subset(corpus_from_rows(dataset), chosen, tmp_path / "o.parquet") == len(range(1, 2000, 3))
    assert pq.read_table(tmp_path / "o.parquet")["q"].to_pylist() == [str(at) for at in range(1, 2000, 3)]


def test_row_groups_are_bounded_by_rows_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"q": ["x" * 1000] * 2000}), tmp_path / "a.parquet")
    corpus = open_corpus([str(old(tmp_path / "a.parquet"))])
    monkeypatch.setattr(source_tables, "GROUP_BYTES", 300_000)
    write_subset(corpus, range(2000), tmp_path / "o.parquet")
    metadata = pq.ParquetFile(tmp_path / "o.parquet").metadata
    sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    assert sum(sizes) == 2000 and max(sizes) <= 2 * 256


def test_a_parquet_file_that_changed_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    pq.write_table(pa.table({"q": ["a", "b"]}), tmp_path / "a.parquet")
    corpus = open_corpus([str(old(tmp_path / "a.parquet"))])
    pq.write_table(pa.table({"q": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="changed"):
        write_subset(corpus, [0, 1], tmp_path / "o.parquet")
    assert not (tmp_path / "o.parquet").exists()


def test_json_columns_are_objects_for_datasets(tmp_path: Path) -> None:
    import datasets

    records = [{"m": [{"z": None, "a": 2**60, "s": "é"}], "n": 1}, {"m": "text", "n": 2}, {"n": 3}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    subset_file(open_corpus([str(old(tmp_path / "a.jsonl"))]), [0, 1, 2], tmp_path / "o.parquet")
    found = datasets.Dataset.from_parquet(str(tmp_path / "o.parquet"), cache_dir=str(tmp_path / "cache"))
    assert list(found) == [records[0], records[1], {"m": None, "n": 3}]


@pytest.mark.parametrize("order", ["input", "best"])
def test_text_and_bytes_in_views_are_taken_as_views(tmp_path: Path, order: Literal["input", "best"]) -> None:
    texts = pa.array(["a", None, "é" * 20, ""], pa.string_view())
    table = pa.table({"text": texts, "bytes": pa.array([b"\xff", b"", None, b"y" * 20], pa.binary_view())})
    pq.write_table(table, tmp_path / "a.parquet")
    subset_file(open_corpus([str(old(tmp_path / "a.parquet"))]), [3, 0, 2], tmp_path / "b.parquet", order=order)
    written = pq.read_table(tmp_path / "b.parquet")
    assert written.schema.equals(table.schema, check_metadata=True)
    assert written.to_pylist() == [table.to_pylist()[row] for row in ([3, 0, 2] if order == "best" else [0, 2, 3])]
