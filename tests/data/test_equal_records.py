"""Equal records have equal tokens, masks and ids, whatever file they are in and whatever their neighbours are."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_records import drawn_record, old, stored
from tiny_chat import WITH_TOOLS, masker

from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.selection.subset import subset_file

# The records of a public report: Arrow gives both calls the keys city, a and b.
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
SUM = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
REPORTED = [
    {
        "messages": [
            {"role": "user", "content": question},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
            },
        ],
        "tools": [
            {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": parameters}}
        ],
    }
    for question, name, arguments, parameters in (
        ("Weather in Oslo?", "get_weather", {"city": "Oslo"}, WEATHER),
        ("Add two and three.", "add", {"a": 2, "b": 3}, SUM),
    )
]


def tokenized(path: str) -> list[TokenizedSample]:
    return masker(WITH_TOOLS, max_length=None).tokenize_many(list(open_corpus([path]).records()))


def facts(rows: list[TokenizedSample]) -> list[tuple[object, ...]]:
    return [(row.id, row.status, row.input_ids, row.scored, row.format) for row in rows]


@pytest.mark.parametrize("seed", range(5))
def test_equal_records_are_equal_in_every_kind_of_file(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    records = [drawn_record(draw) for _ in range(6)]
    paths = stored(tmp_path, records)
    right = facts(tokenized(paths["jsonl"]))
    assert [status for _, status, *_ in right] == [Status.SCORED] * 6
    for kind in ("json", "parquet", "saved"):
        assert facts(tokenized(paths[kind])) == right, kind
    alone = [facts(tokenized(stored(_folder(tmp_path, at), [record])["parquet"])) for at, record in enumerate(records)]
    assert [rows[0] for rows in alone] == right


@pytest.mark.parametrize("seed", range(5))
def test_a_subset_in_parquet_is_scored_as_its_source(tmp_path: Path, seed: int) -> None:
    draw = random.Random(100 + seed)
    paths = stored(tmp_path, [drawn_record(draw) for _ in range(6)])
    chosen = sorted(draw.sample(range(6), 3))
    for kind, path in paths.items():
        right = facts(tokenized(path))
        out = tmp_path / f"{kind}.parquet"
        subset_file(open_corpus([path]), chosen, out)
        assert facts(tokenized(str(old(out)))) == [right[row] for row in chosen], kind


def test_nulls_that_arrow_added_to_tool_arguments_are_not_rendered(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(REPORTED)
    assert "'a': None" in str(table.to_pylist()[0])
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in REPORTED))
    right = facts(tokenized(str(old(tmp_path / "a.jsonl"))))
    assert facts(tokenized(str(old(tmp_path / "a.parquet")))) == right
    for name in ("a.jsonl", "a.parquet"):
        out = tmp_path / f"subset-{name}.parquet"
        subset_file(open_corpus([str(tmp_path / name)]), [0, 1], out)
        assert facts(tokenized(str(old(out)))) == right


def test_a_dataset_from_python_gives_the_records_of_its_parquet_file(tmp_path: Path) -> None:
    import datasets

    draw = random.Random(9)
    path = stored(tmp_path, [drawn_record(draw) for _ in range(5)])["parquet"]
    dataset = datasets.load_from_disk(str(tmp_path / "saved"))
    shuffled = dataset.select([3, 1, 4])
    right = [record.data for record in open_corpus([path]).records()]
    assert [record.data for record in corpus_from_rows(dataset).records()] == right
    assert [record.data for record in corpus_from_rows(shuffled).records()] == [right[3], right[1], right[4]]


def test_nulls_written_in_json_stay_in_json_and_in_json_columns(tmp_path: Path) -> None:
    record = {"text": "a", "meta": {"none": None, "list": [None, {"x": None}]}}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    corpus = open_corpus([str(old(tmp_path / "a.jsonl"))])
    assert next(corpus.records()).data == record
    subset = subset_file(corpus, [0], tmp_path / "a.parquet")
    assert subset.json_columns == ("meta",)
    assert next(open_corpus([str(old(tmp_path / "a.parquet"))]).records()).data == record


def test_whole_numbers_in_a_column_of_floats_keep_the_ids(tmp_path: Path) -> None:
    records = [{"text": "a", "n": 1}, {"text": "b", "n": 2.5}, {"text": "c", "n": -0.0}, {"text": "d", "n": 2**53}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    corpus = open_corpus([str(old(tmp_path / "a.jsonl"))])
    subset_file(corpus, range(4), tmp_path / "a.parquet")
    assert pq.read_schema(tmp_path / "a.parquet").field("n").type == pa.float64()
    right = tokenized(str(tmp_path / "a.jsonl"))
    assert facts(tokenized(str(old(tmp_path / "a.parquet")))) == facts(right)
    assert len({row.id for row in right}) == 4


def _folder(parent: Path, at: int) -> Path:
    folder = parent / str(at)
    folder.mkdir()
    return folder
