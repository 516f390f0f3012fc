"""A worker checks its surroundings: the folder must be the run's, and the import path its own."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from canaries import canary, leaks
from cluster_specs import ClusterSpec
from nodes import one_process

from donod_fast.confidential import reveal
from donod_fast.data.shards import Shard
from donod_fast.engines.ray.worker import PartWorker, Report, WorkerJob, _text
from donod_fast.engines.request import RunOptions
from donod_fast.errors import StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer


class Pulse:
    """What a worker tells of its progress, where nobody listens."""

    rows = 0

    def progress(self, rows: int, tokens: int) -> None:
        raise AssertionError("nothing is left to be scored")


@pytest.fixture
def folder(data: Path, scorer: Scorer, tmp_path: Path) -> ScoresFolder:
    return one_process(data, scorer, tmp_path / "scores")


def scored(out: Path, shards: list[Shard], driver_folder: str = "") -> Pulse:
    """Have a worker score shards, without a cluster."""
    spec: Any = ClusterSpec(out, "", out)
    worker = PartWorker.__new__(PartWorker)
    worker._job = WorkerJob(spec, str(out), "cpu", RunOptions(10, workers=0, stall_timeout=60.0), 1, driver_folder)
    worker._folder = worker._pool = None
    worker._wanted = {}
    pulse: Any = Pulse()
    assert worker._scored(shards, pulse, []) == {}
    return pulse


def test_what_is_committed_is_not_scored_again(folder: ScoresFolder) -> None:
    assert scored(folder.path, [folder.plan.shard(2), folder.plan.shard(3)]).rows == 20


def test_a_folder_that_the_node_does_not_see_is_named(folder: ScoresFolder, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"elsewhere holds no manifest\.json.*every node of the cluster"):
        scored(tmp_path / "elsewhere", [folder.plan.shard(0)])


def test_a_folder_with_another_plan_is_not_written_to(folder: ScoresFolder) -> None:
    other = Shard(0, 0, folder.plan.shard(1).segments)
    with pytest.raises(StoreError, match="another plan here"):
        scored(folder.path, [other])


def test_the_folder_of_the_driver_is_off_the_import_path(
    folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # to be put back
    scored(folder.path, [folder.plan.shard(0)], driver_folder=str(tmp_path))
    assert str(tmp_path) not in sys.path


def test_a_worker_gets_the_secrets_of_urls_and_shows_none(
    folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = canary(1)
    monkeypatch.setenv("DONOD_FAST_URL_x", f"https://u:{secret}@h/rows.jsonl")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # to be put back
    spec: Any = ClusterSpec(folder.path, "", folder.path)
    job = WorkerJob(spec, str(folder.path), "cpu", RunOptions(10, workers=0), 1, "").finding_a_folder()
    sent = pickle.dumps(job)
    monkeypatch.delenv("DONOD_FAST_URL_x")  # another node
    assert reveal("https://REDACTED@h/rows.jsonl") is None
    back: WorkerJob = pickle.loads(sent)
    back.settle_in()
    assert reveal("https://REDACTED@h/rows.jsonl") == f"https://u:{secret}@h/rows.jsonl"
    failed = OSError(f"{'x' * 270} cannot open https://u:{secret}@h/rows.jsonl")
    assert not leaks([secret[:8]], [repr(back), _text(failed)])


def test_a_report_comes_back_as_it_was_sent() -> None:
    report = Report(3, "node a", {"alpaca": 2}, [(1, "odd"), (None, "é")], [1], "CorpusError", "gone", is_final=True)
    back = Report.from_json(report.to_json())
    assert (back.task, back.formats, back.left, back.kind, back.is_final) == (
        3,
        {"alpaca": 2},
        [1],
        "CorpusError",
        True,
    )
    assert [tuple(problem) for problem in back.problems] == report.problems
