"""A cluster gives the same scores as one process, even if nodes or processes are lost.

Each run starts three or four processes of Ray, which import all that they need: most of these trials are nightly. What
they rest on is tested without a cluster: the ledger in ``test_ledger.py``, what a worker does with what it is given in
``test_ray_worker.py``, rows that no process survives in ``tests/engines/test_device_faults.py``.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cluster_specs
import pyarrow as pa
import pytest
from cluster_specs import PART_ROWS, ClusterSpec, on_ray, workers
from device_specs import POISON, wait_for
from loss_folders import assert_losses_fit, loss_bytes
from nodes import ROWS, TwoNodes, descendants, is_gone, meanwhile, one_process, part_bytes
from score_runs import assert_same_bits, leftovers, short_rows, write_lines

from donod_fast.data.reading import open_corpus
from donod_fast.engines.ray import RaySettings, score_on_ray
from donod_fast.engines.request import RunOptions
from donod_fast.errors import CorpusError, InputError, SettingsMismatchError, WorkerError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def test_a_cluster_writes_the_bits_that_one_process_writes(
    model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    wanted = one_process(data, scorer, tmp_path / "wanted", token_losses=True)
    before = descendants()
    done: list[int] = []
    found = on_ray(
        data,
        ClusterSpec(model, "", place, meet=2),  # neither worker continues before both have a part
        tmp_path / "found",
        None,
        progress=lambda rows, tokens: done.append(rows),
        token_losses=True,
    )
    assert_same_bits(found.folder.table(), wanted.table())
    assert part_bytes(tmp_path / "found") == part_bytes(tmp_path / "wanted")
    assert assert_losses_fit(found.folder)
    assert loss_bytes(tmp_path / "found") == loss_bytes(tmp_path / "wanted")
    assert (found.counts, found.resumed_rows) == (wanted.counts(), 0)
    assert sum(found.formats.values()) == ROWS
    assert sum(done) == ROWS
    assert len(workers(place)) == 2
    assert leftovers(tmp_path / "found") == []
    assert not ray.is_initialized()
    assert descendants() <= before  # the cluster that it started has ended
    assert "ray" not in capfd.readouterr().out


def test_what_a_killed_worker_had_is_scored_by_another(
    model: Path,
    scorer: Scorer,
    data: Path,
    place: Path,
    tmp_path: Path,
    nodes: TwoNodes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = one_process(data, scorer, tmp_path / "wanted")
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: len(workers(place, "waiting")) == 2)  # both in the middle of a part
        killed.append(workers(place, "waiting")[0])
        os.kill(killed[0], signal.SIGKILL)
        (place / "open").touch()

    done: list[int] = []
    with meanwhile(kill), caplog.at_level(logging.WARNING):
        found = on_ray(
            data,
            ClusterSpec(model, "", place, gate=2),
            tmp_path / "found",
            nodes.address,
            progress=lambda rows, tokens: done.append(rows),
        )
    assert_same_bits(found.folder.table(), wanted.table())
    assert sum(done) == ROWS
    # Another takes the place of the one that was killed, unless the one that is left has done all by then.
    assert 2 <= len(workers(place)) <= 3
    assert any("a worker was lost at rows" in problem.text for problem in found.folder.problems())
    assert any("a worker was lost at rows" in record.getMessage() for record in caplog.records)


@pytest.mark.nightly
def test_what_a_lost_node_had_is_scored_on_the_other(
    model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    wanted = one_process(data, scorer, tmp_path / "wanted")

    def remove() -> None:
        wait_for(lambda: len(workers(place, "waiting")) == 2)
        lost = [worker for worker in workers(place, "waiting") if nodes.is_on_second(worker)]
        assert len(lost) == 1
        nodes.remove_second()
        wait_for(lambda: is_gone(lost[0]))
        (place / "open").touch()

    with meanwhile(remove):
        found = on_ray(data, ClusterSpec(model, "", place, gate=2), tmp_path / "found", nodes.address)
    assert_same_bits(found.folder.table(), wanted.table())
    assert any("a worker was lost at rows" in problem.text for problem in found.folder.problems())


@pytest.mark.nightly
def test_a_driver_that_was_killed_resumes_to_the_same_bits(
    model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    wanted = one_process(data, scorer, tmp_path / "wanted")
    out = tmp_path / "found"
    arguments = [str(argument) for argument in (model, data, out, place, nodes.address)]
    driver = subprocess.Popen([sys.executable, cluster_specs.__file__, *arguments], cwd=os.sep)
    try:
        wait_for(lambda: len(workers(place, "waiting")) == 2)
    finally:
        driver.kill()
    driver.wait()
    committed = len(part_bytes(out))
    assert 0 < committed < ROWS // PART_ROWS
    (place / "open").touch()
    found = on_ray(data, ClusterSpec(model, "", place), out, nodes.address)
    assert found.resumed_rows >= committed * PART_ROWS
    assert_same_bits(found.folder.table(), wanted.table())
    for worker in workers(place):
        wait_for(lambda worker=worker: is_gone(worker))  # also those of the killed driver


@pytest.mark.nightly
def test_a_row_that_no_process_survives_costs_one_row(
    model: Path, scorer: Scorer, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    rows = short_rows(2 * PART_ROWS)
    rows[13] = {"id": "poisoned", "question": "which", "answer": f"the {POISON} river"}
    data = write_lines(tmp_path / "rows.jsonl", rows)
    wanted = one_process(data, scorer, tmp_path / "wanted")
    found = on_ray(data, ClusterSpec(model, "exit", place), tmp_path / "found", nodes.address)
    assert found.counts["worker_lost"] == 1
    table = found.folder.table()
    assert table["status"][13].as_py() == "worker_lost"
    others = pa.array([row != 13 for row in range(len(rows))])
    assert_same_bits(table.filter(others), wanted.table().filter(others))
    assert any("row 13 is left out" in problem.text for problem in found.folder.problems())


@pytest.mark.nightly
def test_rows_that_kill_every_worker_are_named_after_all_others_are_done(
    model: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    rows = short_rows(4 * PART_ROWS)
    rows[13] = {"id": "poisoned", "question": "which", "answer": f"the {POISON} river"}
    data = write_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(WorkerError, match=r"rows 10 to 19 cannot be scored: .*3 workers were lost there"):
        on_ray(data, ClusterSpec(model, "", place, kills_worker=True), tmp_path / "out", nodes.address)
    assert len(workers(place, "killed")) == 3
    assert ScoresFolder.open(tmp_path / "out").missing_parts() == [1]


def test_errors_about_settings_name_the_node(
    model: Path, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes, scorer: Scorer
) -> None:
    out = tmp_path / "out"
    one_process(data, scorer, out)
    with pytest.raises(SettingsMismatchError, match=r"node \S+ \(\w+\): (.|\n)*update\.lr"):
        (place / "loaded").touch()
        on_ray(data, ClusterSpec(model, "unlike", place), out, nodes.address)


@pytest.mark.nightly
def test_errors_about_a_vanished_file_name_the_node(model: Path, place: Path, tmp_path: Path, nodes: TwoNodes) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    here, gone = corpus / "a.jsonl", corpus / "b.jsonl"
    write_lines(here, short_rows(2 * PART_ROWS))
    write_lines(gone, short_rows(2 * PART_ROWS, seed=1))

    def vanish() -> None:
        wait_for(lambda: len(workers(place, "waiting")) > 0)
        gone.unlink()
        (place / "open").touch()

    with meanwhile(vanish), pytest.raises(CorpusError, match=rf"node \S+ \(\w+\): .*{gone.name}") as raised:
        on_ray(corpus / "*.jsonl", ClusterSpec(model, "", place, gate=0), tmp_path / "half", nodes.address)
    assert "of 4 parts are committed" in str(raised.value)
    assert "unscored" not in str(raised.value)  # what a worker's pool says of the parts that it was given


def test_what_no_node_can_hold_is_refused(
    model: Path, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    spec: Any = ClusterSpec(model, "", place, device=None)  # type: ignore[arg-type]
    for settings, what in (
        (RaySettings(nodes.address, gpus_per_worker=1.0), "1 CPU, 1 GPU"),
        (RaySettings(nodes.address, cpus_per_worker=2.0), "2 CPU, 0 GPU"),
    ):
        with pytest.raises(InputError, match=f"no node of the cluster can hold a worker of {what}; it has: node"):
            score_on_ray(open_corpus([str(data)]), spec, tmp_path / "out", settings, RunOptions(part_rows=PART_ROWS))
    assert not (tmp_path / "out").exists()
