"""distilabel's pipeline gives each row the scores of the command, and keeps the best; no failure looks like success."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from guide_files import guide_file
from host_cases import MODEL, assert_same_scores, reference, rows, run, write_rows

pytest.importorskip("distilabel", reason="distilabel is not installed: make test-hosts")

from donod_fast.adapters.columns import DETAIL, DON, NOD, STATUS, TOPSIS
from donod_fast.errors import InputError, ModelError

ROWS = rows(24, unscorable=(4, 21))


hosts_only = pytest.mark.skipif("DONOD_FAST_HOSTS" not in os.environ, reason="make test-hosts runs it")
"""Tests of many processes, too slow for the ordinary suite."""


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference")
    return reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")


def distil(folder: Path, *changes: tuple[str, str]) -> Any:
    """Run the guide's script in a folder with ``demo-data``, with a cache of its own."""
    if not (folder / "demo-data").exists():
        (folder / "demo-data").mkdir()
        (folder / "demo-data" / "model").symlink_to(MODEL)
        write_rows(folder / "demo-data" / "corpus.jsonl", ROWS)
    text = guide_file("distilabel", "distil_rows.py").replace(
        'Pipeline("select"', 'Pipeline("select", cache_dir="cache"'
    )
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "distil_rows.py").write_text(text)
    return run(sys.executable, "distil_rows.py", cwd=folder)


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "kept.jsonl").read_text().splitlines()]


def test_the_guide_scores_in_batches_and_ranks_all_rows(tmp_path: Path, wanted) -> None:
    done = distil(tmp_path, ("input_batch_size=256", "input_batch_size=10"), ("keep=0.3", "keep=0.3, drop=False"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = kept(tmp_path)
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    assert_same_scores(found, wanted)
    best = sorted((row for row in found if row[TOPSIS] is not None), key=lambda row: -row[TOPSIS])[: round(0.3 * 22)]
    assert {row["id"] for row in best} == {row["id"] for row in found if row["donod_kept"]}


@hosts_only
def test_a_wrong_model_path_fails_the_run(tmp_path: Path) -> None:
    done = distil(tmp_path, ("demo-data/model", "demo-data/nothing"))
    assert done.returncode != 0
    assert "Failed to load all the steps" in done.stderr
    assert "ModelError" in done.stderr and "demo-data/nothing" in done.stderr
    assert not (tmp_path / "kept.jsonl").exists()


@hosts_only
def test_a_column_that_is_absent_leaves_every_row_with_a_status(tmp_path: Path) -> None:
    done = distil(tmp_path, ("input_batch_size=256", 'options={"columns": "prompt=question,response=answer"}'))
    assert done.returncode == 0, done.stdout + done.stderr
    found = kept(tmp_path)
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    assert {row[STATUS] for row in found} == {"unknown_format"} and "question" in found[0][DETAIL]
    assert not any(row["donod_kept"] for row in found)


def test_a_batch_that_fails_keeps_its_rows_with_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    from distilabel.pipeline import Pipeline

    from donod_fast.adapters.distilabel import DonodRank, DonodScore
    from donod_fast.adapters.lazy_scorer import LazyScorer

    with Pipeline("steps"):
        step = DonodScore(model=str(MODEL))
        rank = DonodRank(keep=2)
        step.load()
        rank.load()
        (scored,) = step.process(ROWS[:4])
        with monkeypatch.context() as patch:
            patch.setattr(LazyScorer, "score", lambda *_, **__: (_ for _ in ()).throw(ModelError("CUDA has gone")))
            (failed,) = step.process(ROWS[4:8])
        assert [row["id"] for row in failed] == [row["id"] for row in ROWS[4:8]]
        assert {(row[STATUS], row[DETAIL]) for row in failed} == {("batch_failed", "ModelError: CUDA has gone")}
        assert set(step.outputs) <= set(failed[0])
        (best,) = rank.process([*failed, *scored])
        assert len(best) == 2 and all(row[TOPSIS] >= 0 for row in best)
        (none,) = rank.process(failed)
        assert [row["id"] for row in none] == [row["id"] for row in failed]
        assert {row[TOPSIS] for row in none} == {None}


def test_steps_are_checked_when_they_are_made(tmp_path: Path) -> None:
    import shutil

    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts

    from donod_fast.adapters.distilabel import DonodRank, DonodScore

    with Pipeline("wrong") as pipeline:
        with pytest.raises((InputError, ValueError), match="unknown option 'learning_rate'"):
            DonodScore(model=str(MODEL), options={"learning_rate": 1.0})
        with pytest.raises((InputError, ValueError), match="keep"):
            DonodRank(keep=1.5)
        LoadDataFromDicts(data=[{"instruction": "a", "output": "b"}]) >> DonodRank(keep=1)
    with pytest.raises(Exception, match=rf"{STATUS}|{DON}|{NOD}"):
        pipeline.run(use_cache=False)
    shutil.copytree(MODEL, tmp_path / "model")
    with Pipeline("stamps"):
        before, same = (DonodScore(name=f"s{at}", model=str(tmp_path / "model")) for at in (0, 1))
        (tmp_path / "model" / "README.md").write_text("no part of the model")
        alike = DonodScore(name="s2", model=str(tmp_path / "model"))
        config = tmp_path / "model" / "config.json"
        config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        changed = DonodScore(name="s3", model=str(tmp_path / "model"))
    assert before.stamp == same.stamp == alike.stamp != changed.stamp
    assert "stamp" in before.dump()
