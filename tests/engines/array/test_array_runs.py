"""An array of processes writes what one process writes, however they are started and killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from remote_files import s3_server
from score_runs import ENVIRONMENT, assert_same_bits, leftovers, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.monitoring import folder_status

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")

ROWS = 120
PROGRAM = Path(__file__).parents[2] / "support" / "array_runs.py"


def array_runs(folder: Path, *arguments: object, rows: int = ROWS) -> dict[str, Any]:
    """Have ``array_runs.py`` run arrays in a folder; it reports what happened."""
    data = write_lines(folder / "rows.jsonl", short_rows(rows))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), save_tiny("llama", folder / "model"), data, folder, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """(report, folder) of a default run"""
    folder = tmp_path_factory.mktemp("arrays")
    return array_runs(folder, 7), folder


def parts_of(folder: Path) -> dict[str, bytes]:
    """The bytes of each part."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


def task_files(folder: Path) -> list[str]:
    """Files that do not belong into a finished folder, but for the marks of tasks."""
    return [name for name in leftovers(folder) if not name.startswith("task-")]


def test_tasks_that_start_at_once_share_one_folder(ran: tuple[dict[str, Any], Path]) -> None:
    report, folder = ran
    assert report["at once"] == [0, 0, 0, 0]
    assert parts_of(folder / "at-once") == parts_of(folder / "undisturbed")
    assert task_files(folder / "at-once") == []
    array = folder_status(folder / "at-once").array
    assert array is not None and [task.state for task in array.tasks] == ["done"] * 4


def test_of_two_arrays_with_other_settings_one_is_refused_whole(ran: tuple[dict[str, Any], Path]) -> None:
    report, folder = ran
    codes = report["mixed"]
    assert codes in ([0, 4, 0, 4], [4, 0, 4, 0])
    found = ScoresFolder.open(folder / "mixed")
    assert found.manifest["part_rows"] == (8 if codes[0] == 0 else 9)
    array = folder_status(folder / "mixed").array
    assert array is not None
    assert [task.state for task in array.tasks] == ["missing" if code else "done" for code in codes]


def test_an_array_killed_at_random_ends_with_the_same_bits(ran: tuple[dict[str, Any], Path]) -> None:
    report, folder = ran
    assert report["kills"] >= 3, report
    assert any(0 < seen < ROWS / 8 for seen in report["seen"]), report
    assert parts_of(folder / "killed") == parts_of(folder / "undisturbed")
    found = ScoresFolder.open(folder / "killed")
    assert_same_bits(found.table(), ScoresFolder.open(folder / "undisturbed").table())
    assert task_files(folder / "killed") == []


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(5))
def test_arrays_on_disk_and_store_end_with_the_same_bits(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("moto")
    with s3_server():
        place = f"s3://bucket/{uuid.uuid4().hex}"
        report = array_runs(tmp_path, seed, place, rows=400)
        assert parts_of(tmp_path / "killed") == parts_of(tmp_path / "undisturbed")
        assert report["stored"] == [0, 0, 0]
        assert set(report["stored mixed"]) <= {0, 4} and 0 in report["stored mixed"]
        wanted = ScoresFolder.open(tmp_path / "undisturbed").table()
        found = ScoresFolder.open(place)
        assert_same_bits(found.table(), wanted)
        mixed = ScoresFolder.open(place + "-mixed")
        assert mixed.missing_parts() or mixed.manifest["part_rows"] == 8
