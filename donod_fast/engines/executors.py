"""The engines behind one interface: an executor takes a job, which describes a run, and scores the folder's parts.

All of them open the folder through ``prologue.py`` and commit the same parts. ``InArray`` limits another one to the
parts of one task of an array.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.engines.prologue import Outcome
    from donod_fast.engines.ray.settings import RaySettings
    from donod_fast.engines.request import RunOptions
    from donod_fast.scores.array_tasks import ArrayTask
    from donod_fast.scoring.sample_scorer import Progress
    from donod_fast.scoring.spec import ScorerSpec
    from donod_fast.system.profiling import Report

Watch = Callable[[int], "AbstractContextManager[Progress | None]"]
"""Opens the display of progress for so many rows, once the model is loaded."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run, described as values.

    Attributes:
        corpus: what to score.
        spec: how to load the scorer.
        out: the scores folder, a path or a URL. The caller holds it, or the task of it that ``options`` name.
        options: how to run.
        watch: opens the display of progress.
        profile: report where the time went.
        trace: file for a Chrome trace of the run.
    """

    corpus: Corpus
    spec: ScorerSpec
    out: str
    options: RunOptions
    watch: Watch
    profile: bool = False
    trace: Path | None = None

    @property
    def rows(self) -> int:
        """Rows of the parts that the job may have to score."""
        from donod_fast.data.shards import plan_shards

        if self.options.task is None:
            return self.corpus.rows
        plan = plan_shards(self.corpus, self.options.part_rows)
        return sum(stop - start for start, stop in map(plan.part_range, self.options.task.parts(plan)))


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run.

    Attributes:
        outcome: what it left behind.
        seconds: time spent scoring, without loading the model.
        compiled: the cost of compiling the decoder; "" if it was not compiled or several processes did.
        reports: profiles of the time by device; empty unless requested.
        smaller_budget: a token budget that would not have run out of memory, None if memory sufficed.
    """

    outcome: Outcome
    seconds: float
    compiled: str = ""
    reports: tuple[Report, ...] = ()
    smaller_budget: int | None = None


class Executor(Protocol):
    """Scores the parts of a job that are missing."""

    def score(self, job: Job) -> Done:
        """Score into the folder; when it returns, all parts of the job are committed.

        Raises:
            InputError, CorpusError, ModelError, StoreError, WorkerError: see ``engines.local.score_corpus``.
        """


class InProcess:
    """The process itself, on one device or with a model that is spread over devices."""

    def score(self, job: Job) -> Done:
        """Score in this process."""
        from donod_fast.engines.local import score_corpus
        from donod_fast.system.profiling import NO_STAGES, Stages

        scorer = job.spec.load()
        stages = Stages(trace=job.trace is not None) if job.profile or job.trace is not None else NO_STAGES
        start = time.perf_counter()
        with job.watch(job.rows) as progress:
            outcome = score_corpus(
                job.corpus,
                scorer,
                job.out,
                part_rows=job.options.part_rows,
                overwrite=job.options.overwrite,
                rescore_changed=job.options.rescore_changed,
                progress=progress,
                workers=job.options.workers,
                stages=stages,
                record=job.options.record,
                token_losses=job.options.token_losses,
                task=job.options.task,
            )
        seconds = time.perf_counter() - start
        if job.trace is not None:
            stages.chrome_trace(job.trace)
        cost = scorer.compiled
        compiled = "" if cost is None else f"{plural(cost.compilations, 'graph')} compiled in {cost.seconds:.1f} s"
        reports = (stages.report(),) if job.profile else ()
        return Done(outcome, seconds, compiled, reports, outcome.fitting_budget)


@dataclass(frozen=True, slots=True)
class OnDevices:
    """Devices of this machine with a process each.

    Attributes:
        devices: as ``engines.devices.parse_devices`` gives them.
    """

    devices: tuple[str, ...]

    def score(self, job: Job) -> Done:
        """Score with a process for each device."""
        from donod_fast.engines.devices import score_on_devices

        reports: list[Report] = []
        start = time.perf_counter()
        with job.watch(job.rows) as progress:
            outcome = score_on_devices(
                job.corpus,
                job.spec,
                job.out,
                self.devices,
                job.options,
                progress=progress,
                on_report=reports.append if job.profile else None,
            )
        return Done(outcome, time.perf_counter() - start, reports=tuple(reports))


@dataclass(frozen=True, slots=True)
class OnRay:
    """Workers of a Ray cluster.

    Attributes:
        cluster: which one, and the resources of each worker.
    """

    cluster: RaySettings

    def score(self, job: Job) -> Done:
        """Score with the workers of the cluster."""
        from donod_fast.engines.ray import score_on_ray

        start = time.perf_counter()
        with job.watch(job.rows) as progress:
            outcome = score_on_ray(job.corpus, job.spec, job.out, self.cluster, job.options, progress=progress)
        return Done(outcome, time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class InArray:
    """One task of an array of processes, which a scheduler such as Slurm starts.

    Attributes:
        task: which one.
        here: executor of the parts of the task.
    """

    task: ArrayTask
    here: Executor

    def score(self, job: Job) -> Done:
        """Score the parts of the task."""
        return self.here.score(replace(job, options=replace(job.options, task=self.task)))


__all__ = ["Done", "Executor", "InArray", "InProcess", "Job", "OnDevices", "OnRay", "Watch"]
