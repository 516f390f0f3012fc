"""Many trials of losing a part of a cluster, and losses that take long to detect."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster_specs
import pytest
from cluster_specs import ClusterSpec, on_ray, workers
from device_specs import wait_for
from nodes import ROWS, TwoNodes, descendants, is_gone, meanwhile, one_process, part_bytes
from score_runs import assert_same_bits

from donod_fast.errors import StoreError, WorkerError
from donod_fast.scoring.scorer import Scorer

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")]

TRIALS = 10


@pytest.mark.parametrize("seed", range(TRIALS))
def test_whatever_is_killed_whenever_the_bits_are_the_same(
    seed: int, model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    draw = random.Random(seed)
    wanted = one_process(data, scorer, tmp_path / "wanted")

    def kill() -> None:
        for _ in range(2):
            wait_for(lambda: len(workers(place)) > 0)
            time.sleep(draw.uniform(0.0, 2.0))
            if draw.random() < 0.3:
                nodes.complete()
                nodes.remove_second()
                continue
            for worker in draw.sample(workers(place), 1):
                if not is_gone(worker):
                    os.kill(worker, signal.SIGKILL)

    with meanwhile(kill):
        found = on_ray(data, ClusterSpec(model, "", place, pause=0.1), tmp_path / "found", nodes.address)
    assert_same_bits(found.folder.table(), wanted.table())


@pytest.mark.parametrize("seed", range(3))
def test_a_driver_killed_again_and_again_resumes_to_the_same_bits(
    seed: int, model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    draw = random.Random(seed)
    wanted, out = one_process(data, scorer, tmp_path / "wanted"), tmp_path / "found"
    arguments = [str(argument) for argument in (model, data, out, place, nodes.address)]
    (place / "open").touch()
    for _ in range(3):
        before = len(part_bytes(out))
        driver = subprocess.Popen([sys.executable, cluster_specs.__file__, *arguments], cwd=os.sep)
        wait_for(lambda before=before, driver=driver: len(part_bytes(out)) > before or driver.poll() is not None)
        time.sleep(draw.uniform(0.0, 1.0))
        driver.kill()
        driver.wait()
    found = on_ray(data, ClusterSpec(model, "", place), out, nodes.address)
    assert_same_bits(found.folder.table(), wanted.table())


def test_a_hanging_worker_is_killed_and_another_scores_its_rows(
    model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    wanted = one_process(data, scorer, tmp_path / "wanted")
    hung: list[int] = []

    def hang() -> None:
        wait_for(lambda: len(workers(place, "waiting")) == 2)
        hung.append(workers(place, "waiting")[0])
        os.kill(hung[0], signal.SIGSTOP)
        (place / "open").touch()

    with meanwhile(hang):
        spec = ClusterSpec(model, "", place, gate=2)
        found = on_ray(data, spec, tmp_path / "found", nodes.address, stall_timeout=15.0)
    assert_same_bits(found.folder.table(), wanted.table())
    assert is_gone(hung[0])


def test_where_all_nodes_are_gone_for_long_the_run_ends(model: Path, data: Path, place: Path, tmp_path: Path) -> None:
    alone = TwoNodes(head_cpus=0)
    try:

        def remove() -> None:
            wait_for(lambda: len(workers(place, "waiting")) == 1)
            alone.remove_second()

        with meanwhile(remove), pytest.raises(WorkerError, match=r"no worker has answered for \d+ s.*rows \d+ to \d+"):
            on_ray(data, ClusterSpec(model, "", place, gate=2), tmp_path / "out", alone.address, stall_timeout=10.0)
    finally:
        alone.shutdown()


@pytest.mark.parametrize("where", ["local", "cluster"])
def test_an_interrupted_driver_leaves_no_process_behind(
    where: str, model: Path, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    arguments = [str(argument) for argument in (model, data, tmp_path / "out", place)]
    before = descendants()
    driver = subprocess.Popen(
        [sys.executable, cluster_specs.__file__, *arguments, nodes.address if where == "cluster" else ""],
        cwd=os.sep,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(workers(place, "waiting")) == 2)
    driver.send_signal(signal.SIGINT)
    _, told = driver.communicate(timeout=600)
    assert told.rstrip().endswith("KeyboardInterrupt")
    for worker in workers(place):
        wait_for(lambda worker=worker: is_gone(worker))
    wait_for(lambda: where == "cluster" or descendants() <= before)
    assert sum(file.stat().st_size > 0 for file in (tmp_path / "out").glob("part-*.parquet")) < ROWS


def test_an_error_ends_all_workers_but_keeps_an_existing_connection(
    model: Path, data: Path, place: Path, tmp_path: Path, nodes: TwoNodes
) -> None:
    import ray

    out = tmp_path / "out"

    def break_one() -> None:
        wait_for(lambda: len(workers(place, "waiting")) == 2)
        out.rename(tmp_path / "elsewhere")  # no part can be written any more
        (place / "open").touch()

    ray.init(address=nodes.address, log_to_driver=False)
    try:
        with meanwhile(break_one), pytest.raises(StoreError, match=r"node \S+ \(\w+\): .*cannot write"):
            on_ray(data, ClusterSpec(model, "", place, gate=2, pause=0.1), out, nodes.address)
        for worker in workers(place):
            wait_for(lambda worker=worker: is_gone(worker))
        assert ray.is_initialized()
    finally:
        ray.shutdown()
