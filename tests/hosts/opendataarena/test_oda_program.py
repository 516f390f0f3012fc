"""OpenDataArena's own main program, if ODA_DATASCORER names the folder of its repository: it is no package."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from host_cases import MODEL, assert_same_scores, reference, rows, run, write_rows
from oda_host import oda_config

PROGRAM = Path(os.environ.get("ODA_DATASCORER", "")) / "model_based" / "main.py"
ROWS = rows(24, unscorable=(3, 17))

pytestmark = [
    pytest.mark.skipif(not PROGRAM.is_file(), reason="ODA_DATASCORER does not name a folder of DataScorer"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "data.jsonl", ROWS)
    return tmp_path


def _found(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "results" / "pointwise_scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["scores"]["DonodScorer"] for line in lines]


def test_the_file_of_the_guide_gives_the_scores(folder: Path) -> None:
    done = run(sys.executable, PROGRAM, "--config", oda_config(folder, MODEL), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert_same_scores(_found(folder), reference(folder / "data.jsonl", folder / "scores"))


def test_two_jobs_give_the_scores_and_resume(folder: Path) -> None:
    # The host counts the GPUs in this variable; the jobs find none and use the CPU.
    command = [sys.executable, PROGRAM, "--config", oda_config(folder, MODEL, gpus=2)]
    done = run(*command, cwd=folder, CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 0, done.stderr
    first = _found(folder)
    assert_same_scores(first, reference(folder / "data.jsonl", folder / "scores"))
    config = folder / "donod.yaml"
    config.write_text(config.read_text() + "resume: true\n")
    [job] = folder.glob("results/master_temp/scorer_DonodScorer/job_1/*.jsonl")
    job.write_bytes(job.read_bytes()[:-500])  # a killed job
    done = run(*command, cwd=folder, CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 0, done.stderr
    assert_same_scores(_found(folder), first_as_reference(first))


def first_as_reference(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of the host as rows of a scores folder."""
    names = {"status": "donod_status", "loss": "donod_loss", "scored_tokens": "donod_scored_tokens"}
    made = [{name: row[column] for name, column in names.items()} for row in found]
    for row, right in zip(found, made, strict=True):
        for name in ("don", "nod"):
            value = row[f"donod_{name}_per_lr"]
            right[name] = None if value is None else value * 2e-5
    return made


def test_a_wrong_model_fails_the_run_with_our_message(folder: Path) -> None:
    done = run(sys.executable, PROGRAM, "--config", oda_config(folder, folder / "nothing"), cwd=folder)
    assert done.returncode == 1
    assert "0 of 24 rows are scored" in done.stderr
    assert str(folder / "nothing") in done.stdout + done.stderr


def test_an_absent_column_fails_or_has_a_status(folder: Path) -> None:
    write_rows(folder / "data.jsonl", [{"id": at, "question": "a"} for at in range(3)])
    config = oda_config(folder, MODEL)
    assert run(sys.executable, PROGRAM, "--config", config, cwd=folder).returncode == 1  # the host's own check
    config.write_text(config.read_text() + "data_with_id: true\n")
    done = run(sys.executable, PROGRAM, "--config", config, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert {row["donod_status"] for row in _found(folder)} == {"unknown_format"}
