"""Rows given from Python: equal records are equal rows in every kind of object, and what is unclear is refused."""

from __future__ import annotations

import io
import json
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from score_runs import assert_same_bits, tiny_scorer, write_lines
from stored_records import SCHEMA, drawn_record, old
from tiny_chat import WITH_TOOLS, masker
from tiny_models import save_tiny

from donod_fast.data.reading import Corpus, corpus_of, one_pass, open_corpus
from donod_fast.errors import CorpusError, InputError

pl = pytest.importorskip("polars")
Records = Sequence[Mapping[str, Any]]

WORDS = ("red", "house", "of", "Ærø", "twelve", "", "3", "nan", "None")


def flat_records(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """Records without nesting, with absent fields, ids and a number that some rows lack."""
    rows: list[dict[str, Any]] = []
    for at in range(count):
        row: dict[str, Any] = {
            "question": " ".join(draw.choices(WORDS, k=4)),
            "answer": " ".join(draw.choices(WORDS, k=3)),
        }
        if draw.random() < 0.5:
            row["id"] = f"r{at}"
        if draw.random() < 0.5:
            row["system"] = "Be short."
        if draw.random() < 0.5:
            row["year"] = draw.randint(1, 3000)
        if draw.random() < 0.5:
            row["share"] = draw.choice([0.5, 1e300])
        rows.append(row)
    return rows


def nested_records(draw: random.Random, count: int, kind: str) -> list[dict[str, Any]]:
    """Conversations with tools. pandas turns whole numbers beside missing ones into floats, which we cannot undo."""
    lost = re.compile(r'null|"count": -?\d|"minimum"' if kind == "pandas of Arrow" else "$.")
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        if not lost.search(json.dumps(row := drawn_record(draw))):
            rows.append(row)
    return rows


def table_of(records: Records) -> pa.Table:
    if any("messages" in record for record in records):
        return pa.Table.from_pylist([dict(record) for record in records], SCHEMA)
    names = list(dict.fromkeys(name for record in records for name in record))
    return pa.table({name: [record.get(name) for record in records] for name in names})


def datasets_of(records: Records) -> Any:
    import datasets

    return datasets.Dataset(table_of(records))


def untyped_stream(records: Records) -> Any:
    import datasets

    return datasets.IterableDataset.from_generator(lambda: iter([dict(record) for record in records]))


def columns_of(records: Records) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


KINDS: dict[str, Callable[[Records], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda records: (record for record in records),
    "iterator": iter,
    "columns": columns_of,
    "array of objects": lambda records: np.array([*records, None], object)[:-1],
    "pandas": lambda records: pd.DataFrame(records),
    "pandas, with an index": lambda records: pd.DataFrame(records, index=range(7, 7 + len(records))),
    "pandas of Arrow": lambda records: table_of(records).to_pandas(),
    "pandas of Arrow's types": lambda records: table_of(records).to_pandas(types_mapper=pd.ArrowDtype),
    "pandas, nullable": lambda records: pd.DataFrame(records).convert_dtypes(),
    "pandas series": lambda records: pd.Series(list(records)),
    "polars": lambda records: pl.from_arrow(table_of(records)),
    "DuckDB": lambda records: pytest.importorskip("duckdb").from_arrow(table_of(records)),
    "table": table_of,
    "table in chunks": lambda records: pa.concat_tables(
        [table_of(records).slice(0, 2), table_of(records).slice(2, 0), table_of(records).slice(2)]
    ),
    "batch": lambda records: table_of(records).combine_chunks().to_batches()[0],
    "reader": lambda records: table_of(records).to_reader(max_chunksize=2),
    "dataset": datasets_of,
    "stream": lambda records: datasets_of(records).to_iterable_dataset(num_shards=2),
    "stream without types": untyped_stream,
    "map": lambda records: map(dict, records),
    "corpus": lambda records: corpus_of(list(records)),
}


def facts(corpus: Corpus) -> list[tuple[object, ...]]:
    rows = masker(WITH_TOOLS, max_length=None).tokenize_many(list(corpus.records()))
    return [(row.id, row.status, row.input_ids, row.scored, row.format) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_equal_records_are_equal_in_every_kind_of_object(tmp_path: Path, kind: str, seed: int) -> None:
    draw = random.Random(seed)
    for records in (nested_records(draw, 5, kind), flat_records(draw, 5)):
        right = facts(open_corpus([str(old(write_lines(tmp_path / "a.jsonl", records)))]))
        corpus = corpus_of(KINDS[kind](records))
        assert corpus.rows == len(records)
        assert facts(corpus) == right
        assert facts(corpus) == right, "a second reading"
        assert [one.row for one in corpus.records(1, 4)] == [1, 2, 3]
        assert [one.data for one in corpus.records(1, 4)] == [one.data for one in corpus.records()][1:4]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_scorer(save_tiny("llama", tmp_path_factory.mktemp("model")), token_budget=300)


def test_every_kind_of_object_gives_the_same_bits(scorer: Any) -> None:
    records = flat_records(random.Random(5), 9)
    wanted = scorer.score_table(records)
    assert set(wanted.column("status").to_pylist()) >= {"scored"}
    for make in KINDS.values():
        assert_same_bits(scorer.score_table(make(records)), wanted)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "corpus"])
def test_equal_data_have_equal_fingerprints_and_other_data_others(kind: str) -> None:
    records = flat_records(random.Random(2), 5)
    other = [*records[:-1], {**records[-1], "answer": "another"}]
    made = [corpus_of(KINDS[kind](rows)).fingerprint for rows in (records, records, other)]
    assert made[0] != made[2]
    if kind != "dataset":  # whose fingerprint is its own
        assert made[0] == made[1]


def test_missing_values_of_pandas_are_absent_as_in_datasets() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", None, "b", "c"],
            "n": [1.5, float("nan"), None, 2.0],
            "when": pd.to_datetime(["2024-01-01", None, None, None]),
            "flag": pd.array([True, None, None, False], dtype="boolean"),
            "kind": pd.Categorical(["x", None, None, "y"]),
            "nested": [{"a": float("nan"), "b": [1.0, float("nan")]}, None, pd.NA, {"a": 1.0, "b": None}],
        }
    )
    found = [record.data for record in corpus_of(frame).records()]
    assert [{*row} for row in found if row is not None] == [
        {"text", "n", "when", "flag", "kind", "nested"}, set(), {"text"}, {"text", "n", "flag", "kind", "nested"},
    ]  # fmt: skip
    assert found[0] is not None and found[0]["nested"] == {"b": [1.0, None]}
    import datasets

    stored = datasets.Dataset.from_pandas(frame.drop(columns="nested"))
    assert [record.data for record in corpus_of(stored).records()] == [
        {name: value for name, value in (row or {}).items() if name != "nested"} for row in found
    ]


def test_a_stream_longer_than_memory_is_kept_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass, "IN_MEMORY", 1 << 12)
    drawn: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for at in range(1000):
            drawn.append(at)
            yield {"question": f"q{at}", "answer": "x" * 20, "odd": threading.Lock() if at == 300 else None}

    corpus = corpus_of(rows())
    source: Any = corpus.sources[0]
    assert source._file._rolled
    assert drawn == list(range(1000))
    for start, stop in ((0, 1000), (255, 257), (999, 1000), (512, 512), (300, 301)):
        assert [one.data["question"] for one in corpus.records(start, stop) if one.data] == [
            f"q{at}" for at in range(start, stop)
        ]
    assert len(drawn) == 1000
    readers = [corpus.records() for _ in range(2)]
    for first, second in zip(*readers, strict=True):
        assert first == second


def test_a_row_that_is_no_record_has_a_status_in_a_stream_and_in_a_list() -> None:
    rows = [{"text": "a"}, 7, ["b"], {"text": "c"}, "d"]
    listed, streamed = ([(one.data, one.problem) for one in corpus_of(make(rows)).records()] for make in (list, iter))
    assert listed == streamed
    assert [problem is None for _, problem in listed] == [True, False, False, True, False]


TEXTS = ["The red house.", "Zwölf", "two\nlines", "yes", "and/or", "你好"]


@pytest.mark.parametrize("make", [list, tuple, iter, pd.Series, pl.Series, pa.array, np.array])
def test_strings_that_are_texts_are_texts(make: Callable[[Any], Any]) -> None:
    found = [record.data for record in corpus_of(make(TEXTS)).records()]
    assert found == [{"text": one} for one in TEXTS]


def test_strings_that_are_names_are_opened(tmp_path: Path) -> None:
    rows = [{"text": "a b"}, {"text": "c"}]
    path = old(write_lines(tmp_path / "a b.jsonl", rows))
    for names in (
        path,
        str(path),
        [path],
        [str(path)],
        (path, str(path)),
        tmp_path.glob("*.jsonl"),
        np.array([str(path)]),
    ):
        corpus = corpus_of(names)
        assert [record.data for record in corpus.records()] == rows * len(corpus.sources)
    for missing in (["no such file.jsonl"], [tmp_path / "gone"], ["my folder/part 1"], [tmp_path / "a", "gone.csv.gz"]):
        with pytest.raises(CorpusError, match="no such file"):
            corpus_of(missing)


@pytest.mark.parametrize("line", ["{}", '{"text":"a"}', '{"text": "a b"}', '{"text":"a/b"}', ' {"text": "é"}'])
@pytest.mark.parametrize("beside", [[], ["yes"], ["a text"]])
def test_json_lines_are_refused_with_both_remedies(line: str, beside: list[str]) -> None:
    with pytest.raises(InputError, match=rf"string {len(beside)} is a JSON object; parse them.* or give the file"):
        corpus_of([*beside, line])


def test_a_pattern_of_files_that_are_here_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old(write_lines(tmp_path / "part 1.jsonl", [{"text": "a b"}]))
    assert [record.data for record in corpus_of(["part 1*"]).records()] == [{"text": "a b"}]
    assert [record.data for record in corpus_of(["part 2*"]).records()] == [{"text": "part 2*"}]


def splits(kind: str) -> Any:
    import datasets

    one = datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}])
    made = datasets.DatasetDict({"train": one, "test": one})
    return made if kind == "DatasetDict" else datasets.IterableDatasetDict(
        {name: split.to_iterable_dataset() for name, split in made.items()}
    )  # fmt: skip


def test_data_with_splits_are_refused_with_the_splits() -> None:
    with pytest.raises(InputError, match=r"'train' \(2 rows\), 'test' \(2 rows\).* data\['train'\]"):
        corpus_of(splits("DatasetDict"))
    with pytest.raises(InputError, match=r"IterableDatasetDict .*'train', 'test'.* data\['train'\]"):
        corpus_of(splits("IterableDatasetDict"))
    frames = {"valid": pd.DataFrame({"text": ["a"]}), "test": pd.DataFrame({"text": ["a", "b"]})}
    lists = {name: frame.to_dict("records") for name, frame in frames.items()}
    for data in (frames, lists):
        with pytest.raises(InputError, match=r"'valid' \(1 row\), 'test' \(2 rows\).* data\['valid'\]"):
            corpus_of(data)
    assert corpus_of(splits("DatasetDict")["test"]).rows == corpus_of(splits("IterableDatasetDict")["test"]).rows == 2


CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: {"question": "a", "answer": "b"}, r"one record.*\[record\]"),
    (lambda: CHAT, "one record"),
    (lambda: {"conversations": [{"from": "human", "value": "a"}]}, "one record"),
    (lambda: {"input_ids": [1, 2], "labels": [-100, 2]}, "one record"),
    (lambda: {"prompt": [{"role": "user", "content": "a"}], "completion": [CHAT["messages"][1]]}, "one record"),
    (lambda: {"question": ["a", "b"], "answer": ["c"]}, "'answer' has 1 values and 'question' 2"),
    (lambda: {"a text", "another text"}, "no order"),
    (lambda: io.StringIO('{"text": "a"}\n'), "give its path"),
    (lambda: io.BytesIO(b"a"), "give its path"),
    (lambda: [json.dumps({"text": "a b"}), json.dumps({"text": "c d"})], "json.loads"),
    (lambda: ["a text", str(Path(__file__).parent)], r"a list names an input .*text\?|\[\{'text': text\}"),
    (lambda: ["a text", "rows.jsonl"], "a list names an input"),
    (lambda: [Path("rows"), "a text"], "a list names an input"),
    (lambda: "one text\nof two lines", "name of an input"),
    (lambda: "One text in one line.", "none named .*'text': text"),
    (lambda: pl.LazyFrame({"text": ["a"]}), r"frame\.collect\(\)"),
    (lambda: pl.DataFrame({"text": [object()]}), "column 'text' of the frame holds Python objects"),
    (lambda: pa.table([["a"], ["b"]], names=["text", "text"]), "two columns have the name 'text'"),
    (lambda: pd.DataFrame([["a", "b"]], columns=["text", "text"]), "two columns have the name 'text'"),
    (lambda: np.zeros((2, 3)), r"array of shape \(2, 3\)"),
    (lambda: None, "rows is a NoneType; give a list of dicts"),
    (lambda: 7, "a frame of pandas or polars"),
    (lambda: b"a", "bytes"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_is_no_corpus_is_refused_with_the_remedy(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        corpus_of(make())


@pytest.mark.parametrize("nothing", [[], (), {}, iter([]), pd.DataFrame({"text": []}), pl.DataFrame({"text": []})])
def test_data_without_rows_are_refused(nothing: Any) -> None:
    with pytest.raises(CorpusError, match="contains no rows"):
        corpus_of(nothing)
