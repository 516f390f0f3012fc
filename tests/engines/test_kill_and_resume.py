"""A run that is killed at any point and resumed ends like one that was never interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loss_folders import assert_losses_fit
from score_runs import (
    COMMAND,
    ENVIRONMENT,
    assert_same_bits,
    command,
    invoke,
    leftovers,
    short_rows,
    write_lines,
)
from tiny_models import save_tiny

from donod_fast.scores.folder import ScoresFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


def killed(how: str, model: Path, data: Path, out: Path, part_rows: int, seed: int = 0) -> dict[str, Any]:
    """Have ``killed_runs.py`` kill workers; it reports what it did."""
    program = Path(__file__).parents[1] / "support" / "killed_runs.py"
    done = subprocess.run(
        [sys.executable, str(program), how, model, data, out, str(part_rows), str(seed)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_run_killed_at_random_points_resumes_to_the_same_table(model: Path, tmp_path: Path) -> None:
    rows = short_rows(480)
    data = write_lines(tmp_path / "rows.jsonl", rows)
    report = killed("random", model, data, tmp_path, part_rows=16, seed=7)
    assert report["kills"] >= 10
    in_mid_work = [seen for seen in report["parts_seen"] if 0 < seen < 30]
    assert len(in_mid_work) >= 10, report
    assert sorted(in_mid_work) == in_mid_work  # what is committed stays

    wanted = ScoresFolder.open(tmp_path / "undisturbed").table()
    found = ScoresFolder.open(tmp_path / "killed").table()
    assert found.column("row").to_pylist() == list(range(len(rows)))
    assert len(set(found.column("status").to_pylist())) >= 3
    assert_same_bits(found, wanted)
    assert leftovers(tmp_path / "killed") == []


def test_a_run_killed_at_any_step_of_writing_resumes_to_the_same_table(model: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", short_rows(4))
    report = killed("steps", model, data, tmp_path, part_rows=2)
    # For the manifest and each of two parts: open, write, and on both sides of: sync, rename, sync, clean up
    assert report["points"] >= 3 * (2 + 2 * 4)
    wanted = ScoresFolder.open(tmp_path / "undisturbed").table()
    for point in range(report["points"] + 1):
        folder = tmp_path / str(point)
        assert_same_bits(ScoresFolder.open(folder).table(), wanted)
        assert leftovers(folder) == [], point


@pytest.mark.parametrize(("how", "files"), [("losses", 1 + 2), ("losses added", 1 + 1)])
def test_losses_of_a_run_killed_at_any_step_are_complete(model: Path, tmp_path: Path, how: str, files: int) -> None:
    data = write_lines(tmp_path / "rows.jsonl", short_rows(3))
    report = killed(how, model, data, tmp_path, part_rows=3)
    # For the manifest, the losses and the part; for a folder that has its part, without the last
    assert report["points"] >= files * (2 + 2 * 4)
    wanted = ScoresFolder.open(tmp_path / "undisturbed")
    losses = assert_losses_fit(wanted)
    for point in range(report["points"] + 1):
        folder = ScoresFolder.open(tmp_path / str(point))
        assert_same_bits(folder.table(), wanted.table())
        assert assert_losses_fit(folder) == losses
        assert leftovers(folder.path) == [], point


def test_a_killed_and_resumed_command_equals_an_undisturbed_one(model: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", short_rows(600))
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    options = ["score", data, "--model", model, "--part-rows", 4, "--device", "cpu", "--out"]

    def stop(by: signal.Signals, after_parts: int) -> tuple[int, str]:
        run = subprocess.Popen(
            [*COMMAND, *map(str, options), str(out)],
            env=ENVIRONMENT,
            cwd="/",
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Where the suite itself runs in the background, a child would inherit that interrupts are ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 120
        while len(list(out.glob("part-*.parquet"))) < after_parts:
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        run.send_signal(by)
        _, errors = run.communicate(timeout=600)
        assert len(list(out.glob("part-*.parquet"))) < 150, "it ended before it was stopped"
        return run.returncode, errors.decode()

    assert stop(signal.SIGKILL, 10)[0] == -signal.SIGKILL
    code, errors = stop(signal.SIGINT, 20)
    assert code == 130
    assert f"donod-fast: error: interrupted; run the same command again to resume in {out}" in errors
    assert "Traceback" not in errors

    done = command(*options, out)
    assert done.code == 0, done.err
    assert "already done" in done.out
    assert invoke(*options, undisturbed, "--quiet").code == 0
    assert_same_bits(ScoresFolder.open(out).table(), ScoresFolder.open(undisturbed).table())
    assert leftovers(out) == []
