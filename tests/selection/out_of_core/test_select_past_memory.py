"""``donod-fast select`` and ``rank`` through DuckDB: the written records and the messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.rankers import larger_than_memory, parse_size

SOURCES = ("web", "code", None)
ROWS: list[dict[str, Any]] = [
    {**row, **({"source": SOURCES[at % 3]} if SOURCES[at % 3] else {})} for at, row in enumerate(short_rows(40, seed=5))
]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished scores folder of two files, which no test changes."""
    place = tmp_path_factory.mktemp("past-memory")
    model = save_tiny("llama", place / "model")
    data = [write_lines(place / "a.jsonl", ROWS[:25]), write_lines(place / "b.jsonl", ROWS[25:])]
    options = ["--model", model, "--device", "cpu", "--carry", "source", "--part-rows", "16"]
    done = invoke("score", *data, *options, "--out", place / "out")
    assert done.code == 0, done.err
    return place / "out"


@pytest.fixture
def in_cloud(scores: Path) -> Iterator[str]:
    """The folder on an object store."""
    url = "memory://past-memory/out"
    files = fsspec.filesystem("memory")
    files.put(str(scores), "/past-memory/out", recursive=True)
    yield url
    files.rm("/past-memory", recursive=True)


def selected(scores: object, out: Path, *options: object) -> list[dict[str, Any]]:
    """The records that ``select`` writes."""
    done = invoke("select", scores, "--out", out, "--quiet", *options)
    assert done.code == 0, done.err
    assert not list(out.parent.glob(".donod-fast-rank*"))
    if out.suffix == ".parquet":
        records: list[dict[str, Any]] = pq.read_table(out).to_pylist()
        return records
    return [json.loads(line) for line in out.read_bytes().splitlines()]


@pytest.mark.parametrize(
    "options",
    [
        ["--keep", "0.3"],
        ["--keep", "12", "--order", "best"],
        ["--keep", "50%", "--method", "nodon", "--weights", "0.2,0.8"],
        ["--keep", "9", "--method", "loss", "--order", "best"],
        ["--keep", "9", "--method", "random", "--seed", "7"],
        ["--keep", "9", "--lr", "3e-3"],
        ["--method", "don-threshold", "--don-quantile", "0.5"],
    ],
)
def test_both_engines_write_the_same_file(scores: Path, tmp_path: Path, options: list[str]) -> None:
    for suffix in (".jsonl", ".parquet") if options == ["--keep", "0.3"] else (".jsonl",):
        one, other = tmp_path / f"memory{suffix}", tmp_path / f"duckdb{suffix}"
        assert selected(scores, one, *options, "--engine", "memory")
        selected(scores, other, *options, "--engine", "duckdb")
        assert one.read_bytes() == other.read_bytes()


def test_both_engines_show_the_same_best_and_worst_rows(scores: Path, tmp_path: Path) -> None:
    for options in (["--count", "3"], ["--count", "100", "--method", "nodon"], ["--json", "--lr", "0.01"]):
        shown = [invoke("rank", scores, *options, "--engine", engine) for engine in ("memory", "duckdb")]
        assert shown[0].code == 0 and shown[0].out
        if "--json" not in options:
            assert shown[0].out == shown[1].out
            continue
        one, other = (json.loads(done.out)["rows"] for done in shown)
        assert [(row["rank"], row["row"], row["text"]) for row in one] == [
            (row["rank"], row["row"], row["text"]) for row in other
        ]


def test_what_fits_is_ranked_in_memory_and_what_does_not_past_it(scores: Path, tmp_path: Path) -> None:
    def engine(*options: str) -> str:
        out = tmp_path / "s.jsonl"
        done = invoke("select", scores, "--keep", "3", "--out", out, "--overwrite", "--json", *options)
        assert done.code == 0, done.err
        return str(json.loads(done.out)["engine"])

    assert engine() == engine("--memory", "1GiB") == "memory"
    assert engine("--memory", "200MB") == engine("--by", "source") == engine("--engine", "duckdb") == "duckdb"


def test_a_share_of_each_source_is_kept_and_told(scores: Path, tmp_path: Path) -> None:
    done = invoke("select", scores, "--keep", "0.3", "--by", "source", "--out", tmp_path / "s.jsonl", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    records = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    table = ScoresFolder.open(scores).table().to_pylist()
    assert [group["name"] for group in told["groups"]] == list(SOURCES)
    for group in told["groups"]:
        mine = [row for row in table if row["record.source"] == group["name"]]
        assert group["rows"] == len(mine)
        assert group["scored"] == sum(row["status"] == "scored" for row in mine)
        assert group["kept"] == max(1, int(0.3 * group["scored"] + 0.5))
        assert group["kept"] == sum(record.get("source") == group["name"] for record in records)
    assert told["kept"] == len(records) == sum(group["kept"] for group in told["groups"])
    text = invoke("select", scores, "--keep", "7", "--by", "file", "--out", tmp_path / "t.jsonl")
    assert text.code == 0, text.err
    assert text.out.splitlines()[1].split()[1:] == ["kept", "scored", "rows"]
    by_file = {line.split()[0]: int(line.split()[1]) for line in text.out.splitlines()[2:4]}
    assert [Path(name).name for name in by_file] == ["a.jsonl", "b.jsonl"] and sum(by_file.values()) == 7


def test_a_folder_on_an_object_store_is_ranked_there(in_cloud: str, scores: Path, tmp_path: Path) -> None:
    here = selected(scores, tmp_path / "here.jsonl", "--keep", "0.4", "--engine", "duckdb")
    for engine in ("duckdb", "memory"):
        assert selected(in_cloud, tmp_path / f"{engine}.jsonl", "--keep", "0.4", "--engine", engine) == here


def test_more_records_best_first_than_fit_are_refused(
    scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(larger_than_memory, "RECORD_BYTES", 10**8)
    options = ["--keep", "20", "--engine", "duckdb", "--memory", "1GB", "--out", tmp_path / "s.jsonl"]
    done = invoke("select", scores, *options, "--order", "best")
    assert_one_line_error(done, 2, "20 rows in the order best first", "room for 10", "--order input")
    assert invoke("select", scores, *options).code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--by", "lang"], "score into a new folder with `donod-fast score … --carry lang`"),
        (["--by", "source", "--engine", "memory"], "--by needs the engine duckdb"),
        (["--by", "source", "--method", "pareto"], "pareto compares all rows"),
        (["--engine", "spark"], "engine must be one of auto, memory, duckdb"),
        (["--memory", "much"], "is not a size; write for example 2GiB"),
        (["--engine", "duckdb", "--method", "bestest"], "unknown method 'bestest'"),
        (["--engine", "duckdb", "--method", "don-threshold", "--don-threshold", "1e9"], "not keep"),
    ],
)
def test_what_cannot_be_is_refused_in_words(scores: Path, tmp_path: Path, options: list[str], told: str) -> None:
    done = invoke("select", scores, "--keep", "3", "--out", tmp_path / "s.jsonl", *options)
    assert_one_line_error(done, 2, told)
    assert list(tmp_path.iterdir()) == []


def test_no_row_above_a_threshold_names_the_largest(scores: Path, tmp_path: Path) -> None:
    options = ["--method", "don-threshold", "--don-threshold", "1e9", "--engine", "duckdb"]
    done = invoke("select", scores, "--out", tmp_path / "s.jsonl", *options)
    assert_one_line_error(done, 2, "no row has DON ≥", "the largest is")


def test_without_duckdb_the_extra_is_named(scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    options = ["select", scores, "--keep", "3", "--out", tmp_path / "s.jsonl"]
    assert_one_line_error(invoke(*options, "--by", "file"), 2, "pip install 'donod-fast[large]'")
    assert invoke(*options).code == 0


def test_a_folder_for_the_table_is_used_and_left_empty(scores: Path, tmp_path: Path) -> None:
    spare, out = tmp_path / "spare", tmp_path / "s.jsonl"
    options = ["select", scores, "--keep", "3", "--by", "file", "--out", out, "--temp-dir", spare]
    assert_one_line_error(invoke(*options), 5, str(spare))
    spare.mkdir()
    assert invoke(*options).code == 0
    assert list(spare.iterdir()) == [] and set(tmp_path.iterdir()) == {spare, out}


def test_sizes_are_read_in_decimal_and_binary_units() -> None:
    assert [parse_size(text) for text in ("2GiB", "1.5 MiB", "500MB", "7", "1tib")] == [
        2 << 30,
        3 << 19,
        500 * 10**6,
        7,
        1 << 40,
    ]
    for text in ("", "0", "GiB", "-1GB", "3 cows"):
        with pytest.raises(InputError, match="is not a size"):
            parse_size(text)


@pytest.mark.parametrize("order", ["input", "best"])
def test_conditions_choose_among_the_kept_rows_of_either_engine(scores: Path, tmp_path: Path, order: str) -> None:
    options = ["--keep", "20", "--order", order]
    whole = selected(scores, tmp_path / "whole.jsonl", *options)
    wanted = [row for row in whole if row.get("source") == "web"]
    assert 0 < len(wanted) < len(whole)
    for engine in ("memory", "duckdb"):
        out = tmp_path / f"{engine}.jsonl"
        assert selected(scores, out, *options, "--engine", engine, "--where", "source=web") == wanted
    done = invoke("select", scores, "--out", tmp_path / "said.jsonl", *options, "--where", "source=web")
    assert f"{len(wanted)} of 20 kept rows fulfil --where source=web" in done.out


def test_an_empty_selection_writes_nothing(scores: Path, tmp_path: Path) -> None:
    done = invoke("select", scores, "--out", tmp_path / "out.jsonl", "--keep", "0.5", "--where", "loss=:-1")
    assert_one_line_error(done, 2)
    assert "none of the 18 kept rows fulfils --where loss=:-1" in done.err and not (tmp_path / "out.jsonl").exists()
