"""Two nodes on one machine, and helpers for the tests of the cluster."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cluster_specs import PART_ROWS

from donod_fast.data.reading import open_corpus
from donod_fast.engines.local import score_corpus
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer

ROWS = 120
QUICK_HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,  # a node that is gone refuses at once …
    "health_check_timeout_ms": 60_000,  # … and one that is only slow is not given up
    "health_check_failure_threshold": 5,
}


class TwoNodes:
    """A cluster on this machine: a head, and a node with one CPU that can be removed and added again."""

    def __init__(self, head_cpus: int = 1) -> None:
        from ray.cluster_utils import Cluster

        self._options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "num_gpus": 0}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                **self._options,
                "num_cpus": head_cpus,
                "include_dashboard": False,
                "_system_config": QUICK_HEALTH,
            },
        )
        self.address: str = self._cluster.address
        self._second: Any = None
        self.complete()

    def complete(self) -> None:
        """See that there are two nodes."""
        if self._second is not None:
            return
        with ExitStack() as stack:
            if threading.current_thread() is not threading.main_thread():  # where Python takes no signal handlers
                stack.enter_context(mock.patch("ray._private.utils.set_sigterm_handler"))
            self._second = self._cluster.add_node(**self._options)

    def remove_second(self) -> None:
        """As if its machine was switched off."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = None

    def is_on_second(self, worker: int) -> bool:
        """Whether a process belongs to the second node: its raylet is among its forebears."""
        raylet = self._second.all_processes["raylet"][0].process.pid
        while worker > 1 and worker != raylet:
            worker = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        return worker == raylet

    def shutdown(self) -> None:
        """End it."""
        self._cluster.shutdown()


def one_process(data: Path, scorer: Scorer, out: Path, **options: Any) -> ScoresFolder:
    with locked(out):
        return score_corpus(open_corpus([str(data)]), scorer, out, part_rows=PART_ROWS, **options).folder


def part_bytes(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.glob("part-*.parquet")}


def is_gone(process: int) -> bool:
    """Whether a process has ended, even if nobody has read its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def descendants() -> set[str]:
    """Command lines of the processes of Ray and of ours that this process has started, directly or not."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    parents = {line.split()[0]: line.split()[1] for line in lines.splitlines()}

    def is_ours(pid: str) -> bool:
        while pid in parents and pid != str(os.getpid()):
            pid = parents[pid]
        return pid == str(os.getpid())

    return {line.split(None, 2)[2] for line in lines.splitlines() if is_ours(line.split()[0]) and " ps -eo" not in line}


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread; its failure is the test's."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]
