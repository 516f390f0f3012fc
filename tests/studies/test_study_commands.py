"""The study commands: options, output, and errors for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from score_runs import assert_one_line_error, invoke

from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER

MODEL, DATA = str(MODEL_FOLDER), str(CORPUS_FILE)


def test_the_dry_run_plans_the_live_study_and_runs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "study"
    done = invoke("study", "threshold", "tiny-study", "--dry-run", "--json", "--out", str(out))
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["cells"]["train"] > 50
    assert not out.exists()


def test_noise_writes_and_prints_its_report(tmp_path: Path) -> None:
    out = tmp_path / "noise"
    arguments = ("--rows", "24", "--seeds", "2", "--kinds", "masked", "--updates", "adamw", "--out", str(out))
    done = invoke("study", "noise", DATA, "--model", MODEL, *arguments)
    assert done.code == 0, done.err
    assert (out / "report.md").read_text(encoding="utf-8") in done.out
    assert "masked" in done.out
    assert done.err.startswith(f"loading model {MODEL} (")
    again = invoke("study", "noise", DATA, "--model", MODEL, *arguments, "--quiet")
    assert again.code == 0 and "loading model" not in again.err and "cached" not in again.err


def test_a_study_without_training_compares_rankings_only(tmp_path: Path) -> None:
    held = ("--heldout", DATA, "--heldout-skip", "60", "--heldout-rows", "8")
    few = ("--rows", "60", "--axes", "weights", "--seeds", "0", "--setting-seeds", "0", "--damage", "masked=0.2")
    done = invoke("study", "sensitivity", DATA, "--model", MODEL, *held, *few, "--out", str(tmp_path / "study"))
    assert done.code == 0, done.err
    assert "overlap" in done.out.lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("threshold", "no-such-recipe"), "no-such-recipe"),
        (("noise", DATA, "--model", MODEL, "--updates", "adam"), "unknown update 'adam'"),
        (("noise", DATA, "--model", MODEL, "--kinds", "burnt"), "burnt"),
        (("focus", DATA, "--model", MODEL), "name the corpus"),
        (("ablation", DATA, "--model", MODEL, "--heldout", DATA, "--keeps", "a"), "--keeps takes shares"),
        (("sensitivity", DATA, "--model", MODEL, "--heldout", DATA, "--damage", "masked"), "KIND=SHARE"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("study", *arguments)
    assert_one_line_error(done, 2, words)
