"""What ``donod-fast status`` reports about a folder: running, interrupted, damaged or finished."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from scored_folders import part_path, scored

from donod_fast.kernels.topsis import column_constants
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.monitoring import folder_status
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.ranking import ScoreColumns

ROWS = short_rows(40, seed=3)


@pytest.fixture
def folder(scorer: Scorer, tmp_path: Path) -> ScoresFolder:
    """A finished folder of ten parts, one committed every ten seconds."""
    folder = scored(scorer, tmp_path / "out", [write_lines(tmp_path / "rows.jsonl", ROWS)])
    for part in range(10):
        os.utime(part_path(folder, part), (1000 + 10 * part, 1000 + 10 * part))
    return folder


def test_a_finished_folder_says_what_is_in_it(folder: ScoresFolder) -> None:
    found = folder_status(folder.path, now=2000)
    assert found.finished and not found.running and found.seconds_left == 0
    assert (found.rows, found.rows_done, found.parts, found.parts_done) == (40, 40, 10, 10)
    table = folder.table()
    assert found.by_status == dict(folder.counts()) and sum(found.by_status.values()) == 40
    assert found.tokens == sum(table.column("tokens").to_pylist())
    assert found.scored_tokens == sum(table.column("scored_tokens").to_pylist())
    assert found.rows_per_second == pytest.approx(36 / 90)
    columns = ScoreColumns.from_table(table)
    for name in ("don", "nod"):
        wanted = column_constants(getattr(columns, name))
        norm = float(wanted.scale * wanted.squares.sqrt())
        assert found.constants[name] == pytest.approx((norm, float(wanted.low), float(wanted.high)), rel=1e-14)


def test_the_time_left_is_estimated_from_the_speed_since_the_last_pause(folder: ScoresFolder) -> None:
    for part in (3, 8, 9):
        part_path(folder, part).unlink()
    for part in (0, 1, 2):  # of a run the day before
        os.utime(part_path(folder, part), (part, part))
    found = folder_status(folder.path, now=1100)
    assert not found.finished and found.rows_done == 28 and found.parts_done == 7
    assert found.rows_per_second == pytest.approx(12 / 30)
    assert found.seconds_left == pytest.approx(12 / (12 / 30)) and found.idle_seconds == pytest.approx(30)
    with locked(folder.path):
        assert folder_status(folder.path).running
        done = invoke("status", folder.path)
        assert done.code == 0 and "running" in done.out and "28 of 40 (70.0%)" in done.out and "left" in done.out, done
    assert "not running" in invoke("status", folder.path).out


def test_a_damaged_part_and_problems_are_named(folder: ScoresFolder) -> None:
    path = part_path(folder, 4)
    path.write_bytes(path.read_bytes()[:-20])
    folder.note_problem(2, "its process was killed (SIGKILL)")
    folder.note_problem(None, "a node was lost")
    found = folder_status(folder.path)
    assert list(found.damaged) == [4] and not found.finished and found.rows_done == 36
    done = invoke("status", folder.path)
    for text in ("part-000004.parquet is damaged", "part 2: its process was killed", "a node was lost"):
        assert text in done.out, done.out
    found_json = json.loads(invoke("status", folder.path, "--json").out)
    assert [problem["part"] for problem in found_json["problems"]] == [2, None] and found_json["finished"] is False


def test_an_empty_folder_and_one_that_is_none(folder: ScoresFolder, tmp_path: Path) -> None:
    for part in range(10):
        part_path(folder, part).unlink()
    found = folder_status(folder.path)
    assert found.rows_done == 0 and found.rows_per_second is None and found.seconds_left is None
    assert "none yet" in invoke("status", folder.path).out
    assert_one_line_error(invoke("status", tmp_path), 5, "holds no manifest.json")


def test_the_first_commits_of_several_workers_do_not_inflate_the_speed(folder: ScoresFolder) -> None:
    for part in range(2, 10):
        part_path(folder, part).unlink()
    manifest = dict(folder.manifest, created="1970-01-01T00:15:00+00:00")  # a hundred seconds before the first commit
    folder.write_manifest(manifest)
    os.utime(part_path(folder, 1), (1000.01, 1000.01))
    found = folder_status(folder.path, now=1020)
    assert found.rows_per_second == pytest.approx(8 / 100, rel=1e-3)
    with locked(folder.path):
        assert folder_status(folder.path, now=1060).rows_per_second == pytest.approx(8 / 160, rel=1e-3)
