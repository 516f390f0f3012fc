"""Exported records with their scores: every row is present, and every value is unchanged."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from score_runs import assert_one_line_error, command, invoke, short_rows, write_lines
from scored_folders import part_path, scored

from donod_fast.scores.exporting import export, export_file
from donod_fast.scoring.scorer import Scorer

ROWS = [{**row, "n": at} if at % 2 else row for at, row in enumerate(short_rows(30, seed=3))]
SCORES = ("row", "status", "tokens", "don", "nod", "loss")


def joined(scorer: Scorer, out: Path, data: Path) -> list[dict[str, object]]:
    """What is wanted: by hand, from the table and the lines."""
    table = scored(scorer, out, [data]).table().to_pylist()
    rows = []
    for scores, line in zip(table, data.read_text().splitlines(), strict=True):
        own = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
        rows.append({**own, **{f"donod.{name}": _known(scores[name]) for name in SCORES}})
    return rows


def _known(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def test_both_kinds_of_output_pair_every_row_with_its_scores(scorer: Scorer, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    with data.open("a") as file:
        file.write('{"question": "cut o\n')
    wanted = joined(scorer, tmp_path / "out", data)
    assert len(wanted) == 31 and wanted[-1]["donod.status"] == "not_parsable"
    assert invoke("export", tmp_path / "out", "--out", tmp_path / "all.parquet").out.startswith("31 rows")
    assert invoke("export", tmp_path / "out", "--out", tmp_path / "saved").code == 0
    for found in (
        pq.read_table(tmp_path / "all.parquet").to_pylist(),
        list(datasets.load_from_disk(tmp_path / "saved")),
    ):
        for row, right in zip(found, wanted, strict=True):
            assert {name: row.get(name) for name in {*row, *right} if "donod." not in name} == {
                name: right.get(name) for name in {*row, *right} if "donod." not in name
            }
            assert {name: row[f"donod.{name}"] for name in SCORES} == {name: right[f"donod.{name}"] for name in SCORES}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_only_a_saved_dataset_is_replaced(scorer: Scorer, tmp_path: Path) -> None:
    scores = scored(scorer, tmp_path / "out", [write_lines(tmp_path / "rows.jsonl", ROWS)])
    before = sorted(path.name for path in Path(scores.path).iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for name in ("out", "mine"):
        done = invoke("export", tmp_path / "out", "--out", tmp_path / name, "--overwrite")
        assert_one_line_error(done, 5, "is not a saved dataset")
    assert sorted(path.name for path in Path(scores.path).iterdir()) == before
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    (tmp_path / "saved").mkdir()  # an empty folder holds nothing to lose
    for _ in range(2):
        assert invoke("export", tmp_path / "out", "--out", tmp_path / "saved", "--overwrite").code == 0
    assert len(datasets.load_from_disk(tmp_path / "saved")) == len(ROWS)


def test_a_dataset_folder_is_written_without_bars_of_the_library(scorer: Scorer, tmp_path: Path) -> None:
    scored(scorer, tmp_path / "out", [write_lines(tmp_path / "rows.jsonl", ROWS)])
    done = command("export", tmp_path / "out", "--out", tmp_path / "saved")
    assert (done.code, done.err) == (0, ""), done


def test_columns_of_no_one_type_are_named_and_are_json_text(scorer: Scorer, tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "b", "n": "text"}, {"question": "a", "answer": "c", "n": 3}]
    folder = scored(scorer, tmp_path / "out", [write_lines(tmp_path / "rows.jsonl", rows)])
    options = ["export", tmp_path / "out", "--out", tmp_path / "all.parquet"]
    assert "1 column as JSON text, because no column type holds the values: n" in invoke(*options).out
    assert pq.read_table(tmp_path / "all.parquet").column("n").to_pylist() == ['"text"', "3"]
    assert invoke(*options, "--records", "json", "--overwrite").code == 0
    table = pq.read_table(tmp_path / "all.parquet")
    assert [json.loads(text) for text in table.column("record").to_pylist()] == rows
    assert_one_line_error(invoke(*options), 5, "exists already", "--overwrite")
    assert export(folder, folder.reopened(), tmp_path / "all.parquet", records="json", overwrite=True) == 2


def test_a_column_named_like_a_score_and_an_unfinished_folder_are_refused(scorer: Scorer, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"question": "a", "answer": "b", "donod.don": 1}])
    folder = scored(scorer, tmp_path / "out", [data])
    options = ["export", tmp_path / "out", "--out", tmp_path / "all.parquet"]
    assert_one_line_error(invoke(*options), 2, "'donod.don' has the name of a score")
    part_path(folder, 0).unlink()
    assert_one_line_error(invoke(*options), 5, "unfinished")


@pytest.mark.parametrize("records", ["columns", "json"])
def test_a_corpus_that_has_changed_is_not_joined_to_old_scores(scorer: Scorer, tmp_path: Path, records: str) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    scored(scorer, tmp_path / "out", [data])
    write_lines(data, ROWS[::-1])
    done = invoke("export", tmp_path / "out", "--out", tmp_path / "all.parquet", "--records", records)
    assert_one_line_error(done, 3, str(data), "changed")


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks descriptors up in /proc")
def test_a_dataset_that_is_replaced_is_whole_or_absent_at_a_kill(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = scored(scorer, tmp_path / "scores", [write_lines(tmp_path / "rows.jsonl", ROWS)]), tmp_path / "saved"
    export(folder, folder.reopened(), out)
    whole = {file.name: file.read_bytes() for file in out.iterdir()}
    corpus = folder.reopened()
    for last in range(40):
        child = os.fork()
        if child == 0:
            left = iter(range(last))
            for name in ("unlink", "rmdir", "rename"):
                _count_down(monkeypatch, name, out, left)
            export_file(folder, corpus, out, overwrite=True)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if out.exists():
            assert datasets.load_from_disk(str(out)).num_rows == len(ROWS), last
            assert {file.name for file in out.iterdir()} == whole.keys(), last
        export(folder, corpus, out, overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "scores", "saved"}, last
        if code == 0:
            return
    raise AssertionError("it never ended")


def _count_down(monkeypatch: pytest.MonkeyPatch, name: str, place: Path, left: Iterator[int]) -> None:
    """Kill this process at one of the changes of a folder."""
    call = getattr(os, name)

    def changed(*arguments: Any, dir_fd: int | None = None, **options: Any) -> None:
        paths = [str(one) for one in arguments]
        paths += [str(Path(f"/proc/self/fd/{dir_fd}").readlink())] if dir_fd is not None else []
        if any(f"{path}/".startswith(f"{place}/") for path in paths) and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments, **options, **({} if dir_fd is None else {"dir_fd": dir_fd}))

    monkeypatch.setattr(os, name, changed)
