"""Files, folders, standard input and rows from Python: every row is read exactly once, in order."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_files import FILES, ROWS, csv_bytes, data_of, json_lines, parquet_bytes, written, zstd

from donod_fast.data.reading import corpus_from_rows, open_corpus, reopen_corpus
from donod_fast.data.reading.line_scan import CHECKPOINT_ROWS
from donod_fast.errors import CorpusError, InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.parametrize("packed", [("", bytes), (".gz", gzip.compress), (".zst", zstd)], ids=lambda p: p[0])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_rows(
    tmp_path: Path, name: str, packed: tuple[str, Callable[[bytes], bytes]]
) -> None:
    suffix, compress = packed
    path = written(tmp_path / (name + suffix), compress(FILES[name]))

    corpus = open_corpus([path])

    assert corpus.rows == len(ROWS)
    assert data_of(corpus) == ROWS
    assert [record.row for record in corpus.records()] == [0, 1, 2, 3, 4]
    assert {record.file for record in corpus.records()} == {path}
    for start in range(7):
        for stop in range(7):
            assert [record.row for record in corpus.records(start, stop)] == [0, 1, 2, 3, 4][start:stop]
    assert data_of(reopen_corpus(json.loads(json.dumps(corpus.describe())))) == ROWS


def test_byte_order_mark_blank_lines_and_crlf_do_not_belong_to_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text":"a"}\r\n\r\n  \t\n{"text" : "b"} \n{"text":"c"}')
    records = list(open_corpus([path]).records())
    assert [record.raw for record in records] == [b'{"text":"a"}', b'{"text" : "b"} ', b'{"text":"c"}']
    assert [record.place for record in records] == ["line 1", "line 4", "line 5"]


BROKEN_LINES = {
    "cut off": (b'{"text": "a', "Unterminated string"),
    "not UTF-8": (b'{"text": "\xff"}', "not UTF-8: byte 0xff at byte 11"),
    "an array": (b'[{"text": "a"}]', "an array"),
    "a number": (b"3", "a number"),
    "null": (b"null", "null"),
    "two objects": (b'{"text": "a"}{"text": "b"}', "Extra data at column 14"),
    "deep nesting": (b'{"text":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deep"),
    "a huge integer": (b'{"text": ' + b"9" * 10_000 + b"}", "digits"),
}


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_costs_that_line_only(tmp_path: Path, name: str) -> None:
    line, problem = BROKEN_LINES[name]
    path = written(tmp_path / "a.jsonl", b'{"text":"before"}\n' + line + b'\n{"text":"after"}\n')
    before, broken, after = open_corpus([path]).records()
    assert (before.data, after.data) == ({"text": "before"}, {"text": "after"})
    assert (broken.data, broken.raw, broken.place) == (None, line, "line 2")
    assert broken.problem is not None and problem in broken.problem


def test_nan_and_infinity_are_read_as_python_writes_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text":"a","score":NaN,"limit":-Infinity}\n')
    (record,) = open_corpus([path]).records()
    assert record.data is not None and record.data["limit"] == float("-inf")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_reading_can_start_at_any_row_of_a_long_file(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    rows = 3 * CHECKPOINT_ROWS + 5
    content = b"\n".join(b'{"text":"%d"}\n' % row for row in range(rows))  # a blank line between rows
    corpus = open_corpus(
        [written(tmp_path / ("a.jsonl" + (".gz" if compress is not bytes else "")), compress(content))]
    )
    for start in (0, 1, CHECKPOINT_ROWS - 1, CHECKPOINT_ROWS, 2 * CHECKPOINT_ROWS + 7, rows - 1):
        record = next(corpus.records(start))
        assert (record.row, record.data, record.place) == (
            start,
            {"text": str(start)},
            f"line {2 * start + 1}",
        )


def test_memory_stays_flat_however_long_a_file_is(tmp_path: Path) -> None:
    row = {"text": "x" * 1000, "number": "1"}
    paths = [
        written(tmp_path / "a.jsonl", json_lines([row] * 20_000)),
        written(tmp_path / "a.csv", csv_bytes([row] * 20_000, ",")),
    ]
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_corpus(paths).records()) == 40_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5e6, f"{peak / 1e6:.1f} MB for two files of 20 MB"


def test_memory_stays_flat_in_a_parquet_file_of_one_row_group(tmp_path: Path) -> None:
    rows = [{"text": random.Random(row).randbytes(500).hex()} for row in range(20_000)]
    path = written(tmp_path / "a.parquet", parquet_bytes(rows, row_group_size=10**6, use_dictionary=False))
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() for _ in open_corpus([path]).records()) - before
    assert peak < 8e6, f"{peak / 1e6:.1f} MB for a file of 20 MB"
    assert [record.data for record in open_corpus([path]).records(700, 703)] == rows[700:703]


def test_inputs_keep_their_order_and_globs_are_sorted(tmp_path: Path) -> None:
    for name in ("b", "deep/er/a", "c"):
        written(tmp_path / f"{name}.jsonl", json_lines([{"text": f"{name}{i}"} for i in range(2)]))
    last = written(tmp_path / "first.csv", b"text\nfirst0\n")

    corpus = open_corpus([last, str(tmp_path / "**" / "*.jsonl")])

    assert [row["text"] for row in data_of(corpus) if row] == [
        "first0",
        "b0",
        "b1",
        "c0",
        "c1",
        "deep/er/a0",
        "deep/er/a1",
    ]
    assert [record.row for record in corpus.records(2, 6)] == [2, 3, 4, 5]
    assert [record.place for record in corpus.records(2, 6)] == ["line 2", "line 1", "line 2", "line 1"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = written(tmp_path / "part[1].jsonl", json_lines(ROWS))
    assert open_corpus([path]).rows == len(ROWS)


def test_a_parquet_row_keeps_nested_values_and_leaves_null_columns_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "hi"}], "n": 1},
        {"messages": [{"role": "user", "content": None}], "n": None},
    ]
    path = written(tmp_path / "a.parquet", parquet_bytes(rows))
    assert data_of(open_corpus([path])) == [rows[0], {"messages": [{"role": "user"}]}]


def test_a_parquet_value_that_is_not_utf8_affects_only_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    records = list(open_corpus([str(tmp_path / "a.parquet")]).records())
    assert [record.data for record in records] == [{"text": "a"}, None, {"text": "c"}]
    assert [record.row for record in records] == [0, 1, 2]


def test_a_bad_csv_row_affects_only_itself(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfquestion,answer\r\n"a ""quoted""\nq",1\r\nwide,2,3\r\n\r\nnarrow\r\n\xff,4\r\nlast,"5"\r\n'
    records = list(open_corpus([written(tmp_path / "a.csv", content)]).records())
    assert [record.data for record in records] == [
        {"question": 'a "quoted"\nq', "answer": "1"},
        None,
        None,
        None,
        {"question": "last", "answer": "5"},
    ]
    assert [record.place for record in records] == ["line 2", "line 4", "line 6", "line 7", "line 8"]
    assert records[1].problem == "3 fields, but the header names 2 columns"


def test_a_quotation_that_is_never_closed_is_said_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b'question,answer\na,1\n"b,2\nc,3\n')
    first, second = open_corpus([path]).records()
    assert first.data == {"question": "a", "answer": "1"}
    assert second.problem == "a quotation mark opens here and is never closed"


def test_a_csv_field_may_be_longer_than_pythons_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"text\n" + b"x" * 1_000_000 + b"\n")
    assert data_of(open_corpus([path])) == [{"text": "x" * 1_000_000}]


def test_one_object_in_a_json_file_is_one_row(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    indented = open_corpus([written(tmp_path / "indented.json", json.dumps(row, indent=2).encode())])
    one_line = open_corpus([written(tmp_path / "line.json", json.dumps(row).encode())])
    assert data_of(indented) == data_of(one_line) == [row]


def test_an_array_element_that_is_not_an_object_affects_only_its_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", b'[{"text":"a"}, 3, {"text":"c"}]')
    records = list(open_corpus([path]).records())
    assert [record.problem for record in records] == [None, "a number, not an object", None]


def test_a_broken_first_line_does_not_make_json_lines_a_document(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", b'{"text": broken}\n{"text":"b"}\n{"text":"c"}\n')
    assert data_of(open_corpus([path])) == [None, {"text": "b"}, {"text": "c"}]


def test_a_saved_dataset_and_a_split_of_several_are_read(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": dataset, "test": dataset.select([3])}).save_to_disk(str(tmp_path / "two"))

    one = open_corpus([str(tmp_path / "one")])
    test = open_corpus([str(tmp_path / "two")], split="test")

    assert data_of(one) == ROWS and data_of(test) == [ROWS[3]]
    assert [record.row for record in one.records(1, 3)] == [1, 2]
    assert data_of(reopen_corpus(json.loads(json.dumps(test.describe())))) == [ROWS[3]]
    with pytest.raises(CorpusError, match="no split 'dev'; it has train, test"):
        open_corpus([str(tmp_path / "two")], split="dev")


def test_a_name_that_is_nothing_local_is_a_hub_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, split, revision))
        if name == "org/absent":
            raise FileNotFoundError("no such dataset on the hub")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = open_corpus(["org/name"], split="test", revision="abc")
    assert data_of(corpus) == data_of(reopen_corpus(corpus.describe())) == ROWS
    assert asked == [("org/name", "test", "abc")] * 2
    with pytest.raises(CorpusError, match=r"org/absent.*no such dataset on the hub"):
        open_corpus(["org/absent"])


def test_rows_from_python_are_taken_as_they_are() -> None:
    listed = corpus_from_rows([*ROWS, cast(Any, 3)])
    held = corpus_from_rows(datasets.Dataset.from_list(ROWS).with_format("numpy"))
    assert data_of(listed) == [*ROWS, None]
    assert data_of(held) == ROWS
    assert corpus_from_rows(ROWS).fingerprint == corpus_from_rows(list(ROWS)).fingerprint
    assert corpus_from_rows(ROWS).fingerprint != corpus_from_rows(ROWS[1:]).fingerprint
    with pytest.raises(CorpusError, match="given from Python"):
        reopen_corpus(listed.describe())
    wrong: list[Any] = [{"train": ROWS}, "rows.jsonl", ["rows.jsonl"], 3]
    for rows in wrong:
        with pytest.raises(InputError):
            corpus_from_rows(rows)
    with pytest.raises(CorpusError, match="no row"):
        corpus_from_rows([])


@pytest.mark.parametrize("content", [json_lines(ROWS), json.dumps(ROWS).encode()], ids=["lines", "array"])
def test_standard_input_is_kept_so_that_it_can_be_reopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    def piped(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    piped(content)
    corpus = open_corpus(["-"], spool_dir=tmp_path / "scores")

    assert data_of(corpus) == ROWS and next(corpus.records()).file == "-"
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["stdin.jsonl"]
    assert data_of(reopen_corpus(corpus.describe())) == ROWS
    piped(content)  # the same again, as when a run is resumed
    assert open_corpus(["-"], spool_dir=tmp_path / "scores").fingerprint == corpus.fingerprint
    piped(b'{"text":"other"}')
    with pytest.raises(CorpusError, match="has different rows from an earlier run"):
        open_corpus(["-"], spool_dir=tmp_path / "scores")
    assert data_of(reopen_corpus(corpus.describe())) == ROWS
    piped(content)
    assert open_corpus(["-"]).rows == len(ROWS)
    with pytest.raises(CorpusError, match="once"):
        open_corpus(["-", "-"])


def test_the_fingerprint_follows_content_and_order_but_not_names(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", json_lines(ROWS[:2]))
    b = written(tmp_path / "b.jsonl", json_lines(ROWS[2:]))
    copy = written(tmp_path / "copy.jsonl", json_lines(ROWS[:2]))
    fingerprint = open_corpus([a, b]).fingerprint
    assert fingerprint == open_corpus([copy, b]).fingerprint
    assert fingerprint != open_corpus([b, a]).fingerprint


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("alpaca/alpaca_5000.json", 5000),
        ("codealpaca/code_alpaca_2k.json", 2017),
        ("codealpaca/new_codealpaca.json", 4535),
        ("chat/dummy_conversation.json", 500),
        ("gsm8k/train.jsonl", 7473),
        ("gsm8k/test.jsonl", 1319),
        ("humaneval/HumanEval.jsonl.gz", 164),
        ("mbpp_plus/MbppPlus.jsonl.gz", 378),
    ],
)
def test_real_files_hold_the_rows_that_their_publishers_state(name: str, rows: int) -> None:
    corpus = open_corpus([str(SHARED / name)])
    assert corpus.rows == rows == sum(record.data is not None for record in corpus.records())
