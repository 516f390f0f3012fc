"""The driver of a scoring run on a Ray cluster.

The driver computes nothing and needs no GPU. First a worker loads the model and creates the folder. Then tasks go
through a pool of actors (``stream.py``, ``worker.py``), and small reports come back. A task describes parts; it has no
rows.

Faults are handled at three levels. If a row ends its process, the device pool of the worker handles it. If a worker or
a node is lost, Ray gives its task to another worker as often as necessary; committed parts are not scored again. The
ledger (``ledger.py``) limits how often a task may be lost, and shows workers that hang, which the driver kills. Parts
that are left because a device was given up are tried once more by any worker.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from donod_fast import errors
from donod_fast.criteria.running import fingerprints
from donod_fast.data.prefetch import default_workers
from donod_fast.data.reading import Corpus
from donod_fast.engines.isolation import LOADING_SECONDS, MOST_TRIES
from donod_fast.engines.prologue import OpenRun, Outcome, begin
from donod_fast.engines.ray.connection import connected, first_line, import_ray, worker_resources
from donod_fast.engines.ray.ledger import Ledger, News
from donod_fast.engines.ray.settings import RaySettings
from donod_fast.engines.ray.stream import PARTING_SECONDS, POLL_SECONDS, ActorPool, Stream
from donod_fast.engines.ray.worker import PartWorker, Report, WorkerJob, open_first
from donod_fast.engines.request import OnProblem, RunOptions
from donod_fast.errors import CorpusError, DonodError, InputError, WorkerError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.scoring.spec import ScorerSpec
from donod_fast.system.storage import is_url

log = logging.getLogger(__name__)

_TASKS_OF_EACH = 16  # worker at least, so that all end at about the same time
_PARTS_OF_TASK = 16  # at most
_MOST_TASKS = 4096  # each costs the driver a millisecond before the first one starts

_RESUMES = "what is committed stays, and the same command resumes"


def score_on_ray(
    corpus: Corpus,
    spec: ScorerSpec,
    out: Path | str,
    settings: RaySettings,
    options: RunOptions = RunOptions(),
    *,
    progress: Progress | None = None,
    on_problem: OnProblem | None = None,
) -> Outcome:
    """Score a corpus into a folder with workers of a Ray cluster. The caller holds the folder's lock.

    It writes the same parts as ``devices.score_on_devices``, which can resume it, as can any other cluster. Each node
    must see the inputs and the folder under the same names, and have this package installed.

    Args:
        corpus: what to score.
        spec: how to load the scorer.
        out: the scores folder, a path or a URL.
        settings: which cluster, and the resources of each worker.
        options: how to run; ``workers`` follows from the CPUs of a worker.
        progress: called in this process with rows and tokens as they are scored.
        on_problem: called with each problem; None to record problems in the folder, for ``donod-fast status``.

    Raises:
        InputError: Ray is missing, the cluster does not answer or has no room for a worker, or the rows were given from
            Python.
        SettingsMismatchError: the folder holds scores made with other settings.
        ModelError: the model cannot be loaded on a node, or differs between nodes.
        WorkerError: parts could not be scored by any worker, or no worker answers; names rows and cause. Committed
            parts stay.
        StoreError, CorpusError: as for ``score_corpus``; they name the node.
    """
    if any(entry["kind"] == "rows" for entry in corpus.describe()["inputs"]):
        raise InputError("rows given from Python are in no file that another machine could read; score files instead")
    if spec.device_map is not None:
        raise InputError("a worker of the engine ray has one device; leave device_map out")
    out = out if isinstance(out, str) and is_url(out) else Path(out).absolute()
    with connected(settings):
        cpus, gpus = worker_resources(settings, spec.device)
        threads = max(1, int(cpus))
        device = "cuda:0" if gpus else "cpu"
        job = WorkerJob(
            spec=spec,
            out=str(out),
            device=device,
            options=replace(
                options,
                workers=min(threads - 1, default_workers(device.partition(":")[0], corpus.rows // settings.workers)),
            ),
            threads=threads,
            driver_folder=str(Path.cwd()),
        )
        _open(job, corpus, cpus, gpus)
        folder = ScoresFolder.open(out)
        run = begin(folder, fingerprints(spec.signals), progress)
        driver = _Driver(run, settings.workers, options.stall_timeout, progress, on_problem or folder.note_problem)
        driver.score(ActorPool(PartWorker, (job.finding_a_folder(), driver.ledger), settings.workers, cpus, gpus))
    return run.outcome(driver.formats)


def _open(job: WorkerJob, corpus: Corpus, cpus: float, gpus: float) -> None:
    """Let a worker load the model and open or create the folder."""
    ray = import_ray()
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=MOST_TRIES)(open_first)
    try:
        opened = task.remote(job, corpus)
    except (TypeError, AttributeError, ValueError) as error:  # what pickle raises
        raise InputError(f"cannot hand corpus and settings to another process: {error}") from error
    patience = 2 * max(job.options.stall_timeout, LOADING_SECONDS)
    deadline = time.monotonic() + patience
    while not ray.wait([opened], timeout=POLL_SECONDS)[0]:
        if time.monotonic() > deadline:
            raise WorkerError(f"no worker could load the model within {patience:g} s; is the cluster busy?")
    try:
        report = Report.from_json(ray.get(opened))
    except ray.exceptions.RayError as error:
        raise WorkerError(f"the worker that loads the model was lost again and again: {first_line(error)}") from error
    if report.kind:
        raise _error(report)


class _Driver:
    """The driver's view of a run.

    Attributes:
        ledger: handle of the run's ledger.
        formats: rows by record format, without those of lost workers.
    """

    def __init__(
        self, run: OpenRun, workers: int, stall_timeout: float, progress: Progress | None, on_problem: OnProblem
    ) -> None:
        self._ray = import_ray()
        self._open_run, self._folder = run, run.folder
        self._workers, self._stall_timeout = workers, stall_timeout
        self._progress: Progress = progress or (lambda rows, tokens: None)
        self._on_problem = on_problem
        self._tasks: list[tuple[int, ...]] = []
        self._told = (0, 0)
        self._ended: set[tuple[int, int]] = set()  # task and attempt, of workers that hung
        self._failed: dict[int, str] = {}
        self._unread: dict[int, str] = {}
        self.ledger = self._start_ledger()
        self.formats: Counter[str] = Counter()

    def score(self, pool: ActorPool) -> None:
        """Score the missing parts; when it returns all of them are committed."""
        again = self._round(self._open_run.missing, pool)
        if again:  # a device may have given up, which others have not
            log.warning("%d parts were left by a worker; they are tried once more", len(again))
            for part in again:
                del self._failed[part]
            self._round(sorted(again), pool)
        if self._failed:
            parts = "1 part is" if len(self._failed) == 1 else f"{len(self._failed)} parts are"
            raise WorkerError(
                f"{self._failed[min(self._failed)]}; {parts} left unscored for such reasons, the others are committed, "
                "and the same command resumes"
            )
        if self._unread:
            raise self._open_run.unreadable_inputs(CorpusError(self._unread[min(self._unread)]))

    def _round(self, parts: Sequence[int], pool: ActorPool) -> list[int]:
        """Try every part once. Returns the parts that are left and worth another try."""
        if not parts:
            return []
        plan, first = self._folder.plan, len(self._tasks)
        size = max(1, min(_PARTS_OF_TASK, len(parts) // (pool.size * _TASKS_OF_EACH)), -(-len(parts) // _MOST_TASKS))
        self._tasks += plan.tasks(parts, size)
        silent = set(range(first, len(self._tasks)))
        items = [
            {"task": task, "shards": pickle.dumps([plan.shard(part) for part in self._tasks[task]])}
            for task in sorted(silent)
        ]
        again: list[int] = []
        with closing(self._reports(Stream(pool, items, "report"))) as reports:
            for report in reports:
                silent.discard(report.task)
                again += self._hear_report(report)
        for task in silent:
            for part in self._tasks[task]:
                self._failed[part] = f"{self._rows_of(task)}: Ray has dropped them"
        return again

    def _reports(self, stream: Stream) -> Generator[Report, None, None]:
        try:
            yield from map(Report.from_json, stream.results(self._hear_ledger))
        except self._ray.exceptions.RayError as error:
            held = ", ".join(self._rows_of(held.task) for held in self._news().held)
            at = f" (in work were {held})" if held else ""
            raise WorkerError(f"Ray gave up: {first_line(error)}{at}; {_RESUMES}") from error
        finally:
            if not stream.is_over:  # the run has failed or was interrupted: stop all workers
                with suppress(self._ray.exceptions.RayError):
                    self._ray.get(self.ledger.stop.remote(), timeout=PARTING_SECONDS)
                    stream.end(lambda: self._ray.get(self.ledger.workers.remote(), timeout=PARTING_SECONDS))

    def _hear_report(self, report: Report) -> list[int]:
        """Note how a task ended. Returns the parts that are worth another try."""
        self.formats.update(report.formats)
        told = {}
        for part, text in report.problems:
            told[part] = f"{report.where}: {text}"
            self._on_problem(part, told[part])
        if not report.kind:
            return []
        error = _error(report)
        if not isinstance(error, CorpusError | WorkerError):  # of the model or the folder: the same everywhere
            raise error
        lost = f"{self._rows_of(report.task)} cannot be scored: {error}"
        left = [part for part in report.left if not self._open_run.is_committed(part)]  # a worker may not have looked
        for part in left:
            if isinstance(error, CorpusError):
                self._unread[part] = told.get(part, str(error))
            else:
                self._failed[part] = told.get(part, lost)
            if part not in told:
                self._on_problem(part, self._unread.get(part) or self._failed[part])
        return [] if report.is_final or isinstance(error, CorpusError) else left

    # --- the ledger

    def _start_ledger(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(num_cpus=0, max_restarts=0)(Ledger).options(scheduling_strategy=here).remote()

    @property
    def _patience(self) -> float:
        """Seconds to wait for the ledger. Ray gives it a low priority: on a busy machine it may take its time.

        If its process ends, that shows at once.
        """
        return 2 * self._stall_timeout

    def _news(self) -> News:
        try:
            news: News = self._ray.get(self.ledger.news.remote(), timeout=self._patience)
        except self._ray.exceptions.GetTimeoutError as error:
            raise WorkerError(
                f"the run's ledger, a process of this machine, has not answered for {self._patience:g} s; {_RESUMES}"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise WorkerError(f"the run's ledger, a process of this machine, is lost: {first_line(error)}") from error
        return news

    def _hear_ledger(self) -> None:
        """Report progress and lost workers, kill workers that hang, and end the run if no worker is left.

        Raises:
            WorkerError: too many workers were lost in a row, or there are none.
        """
        news = self._news()
        if (news.rows, news.tokens) != self._told:
            self._progress(news.rows - self._told[0], news.tokens - self._told[1])
            self._told = (news.rows, news.tokens)
        for task, where in news.losses:
            text = f"{where}: a worker was lost at {self._rows_of(task)}; they go to another"
            log.warning("%s", text)
            self._on_problem(self._tasks[task][0], text)
        held = ", ".join(self._rows_of(held.task) for held in news.held)
        at = f" (in work were {held})" if held else ""
        if news.strikes > MOST_TRIES * self._workers:
            raise WorkerError(f"{news.strikes} workers were lost without a part done in between{at}; {_RESUMES}")
        if news.silent > 2 * self._stall_timeout:
            raise WorkerError(
                f"no worker has answered for {news.silent:.0f} s, and none took its place{at}: are nodes of the cluster"
                f" gone, or busy? {_RESUMES}"
            )
        self._end_silent(news)

    def _end_silent(self, news: News) -> None:
        """Kill workers that hang. Ray starts others, which get their tasks."""
        patience = self._stall_timeout
        for hung in news.held:
            if hung.silent <= patience or (hung.task, hung.attempt) in self._ended:
                continue
            self._ended.add((hung.task, hung.attempt))
            log.warning("%s: a worker did not answer for %g s, and is ended", hung.where, patience)
            with suppress(self._ray.exceptions.RayError):
                worker = self._ray.get(self.ledger.worker.remote(hung.task), timeout=self._patience)
                if worker is not None:
                    self._ray.kill(worker, no_restart=False)

    def _rows_of(self, task: int) -> str:
        parts = self._tasks[task]
        return f"rows {self._folder.part_range(parts[0])[0]} to {self._folder.part_range(parts[-1])[1] - 1}"


def _error(report: Report) -> DonodError:
    """The error that a worker raised, with its node."""
    kind = getattr(errors, report.kind, WorkerError)
    error: DonodError = kind(f"{report.where}: {report.text}")
    return error


__all__ = ["score_on_ray"]
