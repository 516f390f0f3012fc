"""``bench/first_lease.py``: a dry run of every step, a step that is killed, and what travels."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
ABSENT = ("datasets", "duckdb", "trl", "ray", "peft", "vllm")


@pytest.fixture
def lease(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, with its working folder and its table elsewhere."""
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("first_lease")
    monkeypatch.setattr(module, "WORK", tmp_path / "work")
    monkeypatch.setattr(importlib.import_module("record"), "RESULTS", tmp_path / "results")
    (tmp_path / "work").mkdir()
    return module


def rows_in(archive: Path) -> list[dict[str, str]]:
    with tarfile.open(archive) as tar:
        member = tar.extractfile("bench/results/first_lease.csv")
        assert member is not None
        return list(csv.DictReader(io.TextIOWrapper(member, encoding="utf-8")))


def dry_run(tmp_path: Path, *options: str) -> list[dict[str, str]]:
    """Rows of a dry run without the packages that a device machine may lack."""
    absent = tmp_path / "absent"
    for name in ABSENT:
        (absent / name).mkdir(parents=True)
        (absent / name / "__init__.py").write_text(f"raise ModuleNotFoundError({name!r}, name={name!r})\n")
    out = tmp_path / "out"
    command = [
        sys.executable,
        str(BENCH / "first_lease.py"),
        "--dry-run",
        "--limit",
        "300",
        "--budget",
        "850",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(absent)}
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert [path.name for path in out.iterdir()] == ["first_lease.tar.gz"]
    return rows_in(out / "first_lease.tar.gz")


def outcomes_in(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row["step"]: row["value"] for row in rows if row["name"] == "outcome"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dry_run_of_two_steps_writes_one_archive_of_rows(tmp_path: Path) -> None:
    rows = dry_run(tmp_path, "--only", "a", "c")
    assert outcomes_in(rows) == {"a-rates": "ok", "c-truth": "ok"}
    assert {row["note"] for row in rows if row["step"] == "c-truth" and row["name"] != "outcome"} == {"kept"}


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_dry_run_of_every_step_writes_one_archive_of_rows_and_logs(tmp_path: Path) -> None:
    rows = dry_run(tmp_path)
    outcomes = outcomes_in(rows)
    assert list(outcomes) == [
        "a-rates",
        "b-compile",
        "c-truth",
        "d-launches",
        "e-whole",
        "f-counters",
        "g-tests",
        "h-corpus",
    ]
    assert set(outcomes.values()) == {"ok"}
    names = {row["name"] for row in rows if row["step"] == "d-launches" and row["median_ms"]}
    assert names >= {"label_logits", "logits", "again", "token_statistics", "rescue", "sample_sums", "pack", "direct"}
    assert names >= {"bare product", "one group", "direct: as shipped"}
    verdicts = [row["note"] for row in rows if row["step"] == "c-truth" and row["name"] != "outcome"]
    assert set(verdicts) == {"kept"}
    assert any(row["name"].startswith("ours, file to folder") for row in rows)
    assert all(row["commit"] for row in rows)


def test_a_slow_step_is_killed_with_its_children_and_leaves_its_rows(lease: ModuleType, tmp_path: Path) -> None:
    step = lease.Step("slow", "none", 60.0, "sleeps")
    marker = tmp_path / "child"
    program = tmp_path / "program.py"
    child = f"import time, pathlib; time.sleep(4); pathlib.Path({str(marker)!r}).touch()"
    row = json.dumps({"step": "slow", "name": "early"}) + "\n"
    program.write_text(
        "import pathlib, subprocess, sys, time\n"
        f"pathlib.Path({str(lease.rows_file(step))!r}).write_text({row!r})\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    failure = lease.supervise([sys.executable, str(program)], step, {"PATH": "/usr/bin:/bin"}, 2.0)
    assert failure == "stopped after 2 s"
    assert "started" in lease.log_file(step).read_text()
    lease.collect(step, failure, 2.0, tmp_path, dry=False)
    rows = rows_in(tmp_path / "first_lease.tar.gz")
    assert [(row["name"], row["value"]) for row in rows] == [("early", ""), ("outcome", "stopped after 2 s")]
    time.sleep(4.5)
    assert not marker.exists(), "its child was killed too"


def test_rows_of_all_steps_gather_in_one_table_in_a_small_archive(
    lease: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DONOD_FAST_COMMIT", "abc1234")
    for name in ("one", "two"):
        step = lease.Step(name, "none", 60.0, "")
        lease.log_file(step).write_bytes(b"x" * (3 << 20))
        lease.collect(step, "", 1.0, tmp_path, dry=False)
    assert [row["step"] for row in rows_in(tmp_path / "first_lease.tar.gz")] == ["one", "two"]
    with tarfile.open(tmp_path / "first_lease.tar.gz") as tar:
        sizes = {member.name: member.size for member in tar.getmembers()}
    assert sizes["build/first_lease/one.log"] == 1 << 20
    assert (tmp_path / "first_lease.tar.gz").stat().st_size < 16 << 20


def test_the_limits_of_all_steps_fit_into_one_command(lease: ModuleType) -> None:
    assert sum(step.seconds for step in lease.STEPS) <= 540 >= lease.TOTAL
    assert [step.name[0] for step in lease.STEPS] == list("abcdefgh")


def test_without_a_repository_the_environment_names_the_commit(
    lease: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DONOD_FAST_COMMIT", "abc1234")
    about = importlib.import_module("donod_fast.benchmark.record").circumstances(source=tmp_path / "none.py")
    assert about["commit"] == "abc1234"


def test_results_of_verbose_tests_are_read_with_and_without_xdist(lease: ModuleType) -> None:
    result_of = importlib.import_module("lease.suite").result_of
    test = "tests/kernels/test_triton_gpu.py::test_a[x y-1]"
    assert result_of(f"{test} PASSED   [ 10%]") == ("PASSED", test)
    assert result_of(f"[gw3] [ 10%] FAILED {test}") == ("FAILED", test)
    assert result_of(f"FAILED {test} - assert 1 == 2") is None
    assert result_of(test) is None
    assert result_of("PASSED by name only") is None


def test_counters_are_read_from_the_profilers_table(lease: ModuleType) -> None:
    profiling = importlib.import_module("lease.profiling")
    assert {"direct_kernel", "logits_kernel", "token_statistics_kernel"} <= set(profiling.kernel_names())
    read = profiling.read_report
    head = '"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"'
    lines = ["==PROF== Connected", head, '"0","direct_kernel","x","Duration","us","12.5"',
             '"0","direct_kernel","x","Something Else","%","1"']  # fmt: skip
    assert read(lines) == [("direct_kernel", "Duration", "us", "12.5")]
    assert read([]) == []
