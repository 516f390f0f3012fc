"""OpenDataArena's scorer, called as the host's contract says, by a stand-in of the host's main program.

The host is no package. ``tests/hosts/opendataarena`` runs its own program, if the folder of its repository is named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from host_cases import MODEL, assert_same_scores, reference, rows, run, write_rows
from oda_host import oda_config, oda_stand_in

from donod_fast import load_constants, topsis_constants
from donod_fast.adapters.columns import DON, NOD, STATUS, TOPSIS
from donod_fast.adapters.oda import DonodScorer, missing_rows
from donod_fast.errors import CorpusError, InputError, ModelError, SettingsMismatchError

ROWS = rows(12, unscorable=(3, 7))
CONFIG = {"name": "DonodScorer", "model": str(MODEL), "num_gpu_per_job": 0, "resume": False}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("oda")
    return reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kept", [0, 1, 5, 12])
@pytest.mark.parametrize("broken", [False, True])
def test_a_resumed_file_has_every_row_once_and_in_order(wanted, tmp_path: Path, kept: int, broken: bool) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ROWS)
    scorer = DonodScorer(CONFIG)
    whole = Path(scorer.evaluate_to_file(str(data), str(tmp_path / "out" / "whole.jsonl"), resume=False))
    lines = whole.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join(lines[:kept]) + (lines[kept][:20] if broken and kept < len(lines) else b""))
    scorer.evaluate_to_file(str(data), str(whole), resume=True)
    records = _records(whole)
    assert [record["id"] for record in records] == [row["id"] for row in ROWS]
    assert_same_scores(records, wanted)
    assert records == scorer.evaluate(str(data)) or kept  # batches of other rows round differently


def test_score_is_don_by_the_learning_rate_or_the_frozen_closeness(wanted, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ROWS)
    first = DonodScorer(CONFIG)
    records = first.evaluate(str(data))
    assert all(record["score"] == record[DON] for record in records)
    settings = first.lazy.scorer().describe()
    topsis_constants(records, settings=settings).save(tmp_path / "constants.json")
    second = DonodScorer({**CONFIG, "constants": str(tmp_path / "constants.json")})
    don, nod = ([record[name] for record in records] for name in (DON, NOD))
    closeness = load_constants(tmp_path / "constants.json").apply(don, nod, per_lr=True)
    for row, record, value in zip(ROWS, second.evaluate(str(data)), closeness, strict=True):
        if record[STATUS] == "scored":
            assert record["score"] == record[TOPSIS] == pytest.approx(value, abs=1e-9)
            assert second.score_item(row) == pytest.approx(value, abs=1e-4)
        else:
            assert record["score"] is None
    with pytest.raises(SettingsMismatchError, match="lr"):
        DonodScorer({**CONFIG, "lr": 1e-4, "constants": str(tmp_path / "constants.json")})


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    out = tmp_path / "out.jsonl"
    DonodScorer(CONFIG).evaluate_to_file(str(data), str(out))
    with pytest.raises(SettingsMismatchError, match="lr"):
        DonodScorer({**CONFIG, "lr": 1e-4}).evaluate_to_file(str(data), str(out), resume=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{broken", "line 2 is not JSON"),
        (b"[1]", "line 2 is no JSON object"),
        (b'{"instruction": "a", "output": "b"}', "line 2 has no id"),
        (b'{"id": "demo-00000", "instruction": "a", "output": "b"}', "line 2 has the id of an earlier line"),
    ],
)
def test_a_row_that_cannot_be_joined_is_refused(tmp_path: Path, line: bytes, said: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ROWS[:1])
    data.write_bytes(data.read_bytes() + line + b"\n")
    with pytest.raises(CorpusError, match=said):
        DonodScorer(CONFIG).evaluate_to_file(str(data), str(tmp_path / "out.jsonl"))


def test_a_wrong_configuration_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model must be"):
        DonodScorer({"name": "DonodScorer"})
    with pytest.raises(InputError, match="unknown option 'learning_rate'"):
        DonodScorer({**CONFIG, "learning_rate": 1e-5})
    with pytest.raises(ModelError):
        DonodScorer({**CONFIG, "model": str(tmp_path / "nothing")})


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_lost_rows_fails_although_the_host_continues(wanted, tmp_path: Path, killed: bool) -> None:
    write_rows(tmp_path / "data.jsonl", ROWS)
    host = oda_stand_in(tmp_path / "host")
    command = [sys.executable, host, "--config", oda_config(tmp_path, MODEL)]
    done = run(*command, cwd=tmp_path, ODA_KILL="1" if killed else "")
    assert done.returncode == int(killed), done.stderr
    assert ("6 of 12 rows are scored" in done.stderr) == killed
    found = [one["scores"]["DonodScorer"] for one in _records(tmp_path / "results" / "pointwise_scores.jsonl")]
    assert_same_scores(found, wanted[:6] if killed else wanted)


@pytest.mark.parametrize(
    ("finished", "joined", "said"),
    [
        ([6, 6], 12, ""),
        ([12], 12, ""),
        ([6], 12, "6 of 12 rows are scored"),  # the result of an earlier run is there
        ([], 12, "0 of 12 rows are scored"),
        ([], 0, "0 of 12 rows are scored"),
        ([6, 6], 11, "has scores of 11 of 12 rows"),  # two jobs had a row with the same id
    ],
)
def test_rows_are_counted_in_the_jobs_and_in_the_result(tmp_path: Path, finished, joined: int, said: str) -> None:
    write_rows(tmp_path / "data.jsonl", ROWS)
    notes = tmp_path / "notes"
    notes.mkdir()
    for at, count in enumerate(finished):
        (notes / f"{at}.json").write_text(json.dumps({"name": "DonodScorer", "rows": count}))
    (tmp_path / "results").mkdir()
    write_rows(
        tmp_path / "results" / "pointwise_scores.jsonl",
        [{"id": at, "scores": {"DonodScorer": {}}} for at in range(joined)] + [{"id": 99, "scores": {"Other": {}}}],
    )
    problem = missing_rows(notes, tmp_path, ["main.py", "--config", str(oda_config(tmp_path, MODEL))])
    assert said in problem
    assert bool(said) == bool(problem)
