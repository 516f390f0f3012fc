"""A worker of the cluster: it opens the folder, gets parts to score, and lets a device process score them.

The process belongs to a ``DevicePool``, so the worker handles a crash, a hang or a row that no process survives. Ray
handles only the loss of workers and nodes.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.confidential import known_urls
from donod_fast.criteria.running import fingerprints
from donod_fast.data.reading import Corpus
from donod_fast.data.shards import Shard
from donod_fast.engines.device.pool import DevicePool
from donod_fast.engines.ray.connection import import_ray, node_name
from donod_fast.engines.request import RunOptions
from donod_fast.errors import CorpusError, DonodError, StoreError, WorkerError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.spec import ScorerSpec
from donod_fast.system.wording import shortened

if TYPE_CHECKING:
    from types import TracebackType

_PULSE_SECONDS = 2.0
_FIRST_PULSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What all workers of a run get.

    Attributes:
        spec: how to load the scorer.
        out: the scores folder, an absolute path or a URL.
        device: the device of a worker.
        options: how the device pool of a worker runs.
        threads: threads of the device process.
        driver_folder: the folder in which the driver was started. Ray adds it to the import path of workers, where it
            could shadow packages, so it is removed.
        urls: variables with the secrets of URLs; another node does not inherit them.
    """

    spec: ScorerSpec
    out: str
    device: str
    options: RunOptions
    threads: int
    driver_folder: str
    urls: Mapping[str, str] = field(default_factory=known_urls, repr=False)

    def settle_in(self) -> None:
        """Prepare this process for starting its device process."""
        import torch

        os.environ.update(self.urls)
        sys.path[:] = [place for place in sys.path if place != self.driver_folder]
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        torch.set_num_threads(self.threads)

    def pool(self, corpus: Corpus) -> DevicePool:
        """A pool of one device."""
        return DevicePool(corpus, self.spec, self.out, [self.device], self.options)

    def finding_a_folder(self) -> WorkerJob:
        """The job of workers that score into a folder that is open: they must not drop its scores again."""
        return replace(self, options=replace(self.options, overwrite=False, rescore_changed=False))


@dataclass(frozen=True, slots=True)
class Report:
    """How a task ended.

    Attributes:
        task: number of the task, -1 for opening the folder.
        where: the worker's node.
        formats: rows by record format.
        problems: numbers of parts, with what went wrong there.
        left: parts that are not committed.
        kind: name of the error's class, "" without an error.
        text: message of the error.
        is_final: whether another try of the parts that are left is useless.
    """

    task: int
    where: str
    formats: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int | None, str]] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    kind: str = ""
    text: str = ""
    is_final: bool = False

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Report:
        """Read what :meth:`to_json` wrote."""
        return Report(**json.loads(text))


def open_first(job: WorkerJob, corpus: Corpus) -> str:
    """Load the model on a node of the cluster, and open or create the folder. Returns a :class:`Report` as text."""
    where = node_name(import_ray())
    try:
        job.settle_in()
        with job.pool(corpus) as pool:
            pool.open()
    except Exception as error:
        return Report(-1, where, kind=_kind(error), text=_text(error)).to_json()
    return Report(-1, where).to_json()


class PartWorker:
    """An actor of Ray Data. Its argument and its result are batches of one row.

    It reports errors of a task instead of raising them: Ray has its own handling of exceptions in actors.

    Args:
        job: what all workers get.
        ledger: handle of the run's ledger.
    """

    def __init__(self, job: WorkerJob, ledger: Any) -> None:
        self._job, self._ledger = job, ledger
        self._ray = import_ray()
        self._where = node_name(self._ray)
        self._wanted = fingerprints(job.spec.signals)
        self._folder: ScoresFolder | None = None
        self._pool: DevicePool | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        task = int(batch["task"][0])
        report = self._report(task, pickle.loads(batch["shards"][0]))
        return {"report": [report.to_json()]}

    def _report(self, task: int, shards: Sequence[Shard]) -> Report:
        me = self._ray.get_runtime_context().current_actor
        why_not = self._ray.get(self._ledger.begin.remote(task, self._where, me))
        if why_not is not None:
            parts = [shard.number for shard in shards]
            return Report(task, self._where, left=parts, kind=WorkerError.__name__, text=why_not, is_final=True)
        problems: list[tuple[int | None, str]] = []
        formats: dict[str, int] = {}
        left: list[int] = []
        kind = text = ""
        with _Pulse(self._ray, self._ledger, task) as pulse:
            try:
                formats = self._scored(shards, pulse, problems)
            except Exception as error:
                kind, text = _kind(error), _text(error)
                if not isinstance(error, CorpusError):  # after this the pool can be used again
                    self._close()
                left = [shard.number for shard in shards if not self._seems_committed(shard)]
            pulse.rows = sum(shard.rows for shard in shards if shard.number not in left)
        return Report(task, self._where, formats, problems, left, kind, text)

    def _scored(self, shards: Sequence[Shard], pulse: _Pulse, problems: list[tuple[int | None, str]]) -> dict[str, int]:
        if self._folder is None:
            self._job.settle_in()
            try:
                self._folder = ScoresFolder.open(_place(self._job.out))
            except StoreError as error:
                raise StoreError(f"{error} (every node of the cluster must see it under that name)") from error
        folder = self._folder
        if any(shard.number >= folder.parts or folder.plan.shard(shard.number) != shard for shard in shards):
            raise StoreError(
                f"{folder.name} has another plan here than where the run was started; name a folder that every node of "
                "the cluster sees under that name"
            )
        missing = [shard for shard in shards if not self._is_committed(shard)]  # an attempt may have been lost
        pulse.rows = sum(shard.rows for shard in shards) - sum(shard.rows for shard in missing)
        if not missing:
            return {}
        pulse.awaited = lambda: self._seems_committed(missing[0])
        if self._pool is None:
            self._pool = self._job.pool(folder.corpus())
        parts = [shard.number for shard in missing]
        return dict(self._pool.score(parts, pulse.progress, lambda part, text: problems.append((part, text))))

    def _is_committed(self, shard: Shard) -> bool:
        return self._folder is not None and self._folder.is_committed(shard.number, self._wanted)

    def _seems_committed(self, shard: Shard) -> bool:
        """The same, or False where the store does not say: the driver asks again."""
        try:
            return self._is_committed(shard)
        except StoreError:
            return False

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = None


class _Pulse:
    """Reports to the ledger while a task is in progress.

    Attributes:
        rows: rows that are done.
        awaited: returns whether the first part that was missing is committed.
    """

    def __init__(self, ray: Any, ledger: Any, task: int) -> None:
        self._ray, self._ledger, self._task = ray, ledger, task
        self.rows = self._tokens = 0
        self.awaited: Callable[[], bool] = lambda: False
        self._has_committed = self._is_stopped = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> _Pulse:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._tell(self._ledger.end)

    def progress(self, rows: int, tokens: int) -> None:
        """Take a pool's report of progress.

        Raises:
            WorkerError: the run was ended.
        """
        self.rows += rows
        self._tokens += tokens
        if self._is_stopped:
            raise WorkerError("the run was ended")

    def _beat(self) -> None:
        pause = _FIRST_PULSE_SECONDS
        while not self._over.wait(pause):
            pause = min(_PULSE_SECONDS, 1.2 * pause)
            self._is_stopped = bool(self._tell(self._ledger.sign))

    def _tell(self, method: Any) -> Any:
        self._has_committed = self._has_committed or self.awaited()
        told = method.remote(self._task, self.rows, self._tokens, has_committed=self._has_committed)
        return self._ray.get(told)


def _place(out: str) -> Path | str:
    from donod_fast.system.storage import is_url

    return out if is_url(out) else Path(out)


def _kind(error: Exception) -> str:
    return type(error).__name__ if isinstance(error, DonodError) else WorkerError.__name__


def _text(error: Exception) -> str:
    if isinstance(error, DonodError):
        return str(error)
    return f"failed ({type(error).__name__}: {shortened(error, 300)})"


__all__ = ["PartWorker", "Report", "WorkerJob", "open_first"]
