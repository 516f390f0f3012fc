"""Scorers for workers of a cluster: each process reports where it is and waits. Also a driver to be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from device_specs import POISON, FaultySpec, wait_for
from score_runs import run_options

from donod_fast.data.reading import open_corpus
from donod_fast.engines.device import process as device_process
from donod_fast.engines.local import Outcome
from donod_fast.engines.ray import RaySettings, score_on_ray
from donod_fast.scores.folder import locked
from donod_fast.scoring.scorer import Scorer

PART_ROWS = 10

NURSERY = "DONOD_FAST_TEST_NURSERY"
"""Set for the workers of a test's cluster: the address of a fork server that has imported all that is needed."""


def start_nursery() -> str:
    """Start the fork server; it ends with this process."""
    forkserver.set_forkserver_preload(
        [
            "ray",
            "donod_fast.cli",
            "donod_fast.engines.devices",
            "transformers.models.llama.modeling_llama",
            "cluster_specs",
        ]
    )
    forkserver.ensure_running()
    return str(forkserver._forkserver._forkserver_address)  # type: ignore[attr-defined]


if NURSERY in os.environ and multiprocessing.parent_process() is None:
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    server.ensure_running = resource_tracker.ensure_running  # it runs
    server._forkserver_address, server._forkserver_alive_fd = os.environ[NURSERY], os.pipe()[1]
    device_process.CONTEXT = multiprocessing.get_context("forkserver")  # type: ignore[assignment]


@dataclass(frozen=True)
class ClusterSpec(FaultySpec):
    """A spec (as far as ``score_on_ray`` uses one) whose processes stop where a test wants them.

    Attributes:
        gate: batches that each process may score before it waits for a file ``open`` in ``place``; None for all.
        pause: seconds before each batch.
        kills_worker: whether a poisoned row is the end of the worker that it is sent to, with all its processes.
        device_map: none.
    """

    gate: int | None = None
    pause: float = 0.0
    kills_worker: bool = False
    device_map: None = None

    def load(self) -> Scorer:
        scorer = super().load()
        run, batches = scorer.trunk.run, 0
        poison = scorer.loaded.tokenizer.convert_tokens_to_ids(POISON)

        def gated(**arguments: Any) -> Any:
            nonlocal batches
            batches += 1
            worker = multiprocessing.parent_process()
            assert worker is not None and worker.pid is not None
            (self.place / f"worker-{worker.pid}").touch()
            if self.gate is not None and batches > self.gate:
                (self.place / f"waiting-{worker.pid}").touch()
                wait_for(lambda: (self.place / "open").exists())
            time.sleep(self.pause)
            if self.kills_worker and bool((arguments["input_ids"] == poison).any()):
                (self.place / f"killed-{worker.pid}").touch()
                os.kill(worker.pid, signal.SIGKILL)
                time.sleep(3600)  # this process goes with it
            return run(**arguments)

        scorer.trunk.run = gated
        return scorer


def workers(place: Path, what: str = "worker") -> list[int]:
    """Process ids of the workers that have come to score, or that are ``"waiting"``."""
    return sorted(int(file.name.partition("-")[2]) for file in place.glob(f"{what}-*"))


def on_ray(data: Path, spec: Any, out: Path, address: str | None, **options: Any) -> Outcome:
    """Score with two workers of a cluster."""
    settings = RaySettings(address, workers=2)
    options.setdefault("stall_timeout", 900.0)
    how = run_options(PART_ROWS, options)
    with locked(out):
        return score_on_ray(open_corpus([str(data)]), spec, out, settings, how, **options)


if __name__ == "__main__":
    import cluster_specs  # by this name workers know the spec

    model, data, out, place = map(Path, sys.argv[1:5])
    on_ray(data, cluster_specs.ClusterSpec(model, "", place, gate=2), out, sys.argv[5] or None)
