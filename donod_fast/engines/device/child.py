"""The process of one device: loads the model there, and scores the parts that its parent hands out.

What goes over the pipe: the child sends :class:`Ready` once. For every :class:`Go` it asks for parts (:class:`Wants`,
answered with a :class:`Task`, or None for no more), says what it is doing (:class:`At`, :class:`Progressed`) and ends
with :class:`Idle` when all of them are committed. For every :class:`Probe` it announces row after row (:class:`Trying`,
:class:`Passed`) and ends with :class:`Probed`. :class:`Failed` is its last word.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from donod_fast.data.prefetch import Step
from donod_fast.data.reading import Corpus
from donod_fast.data.types import Status
from donod_fast.engines.local import manifest_of, score_parts
from donod_fast.errors import CorpusError, DonodError, WorkerError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.spec import ScorerSpec
from donod_fast.system.profiling import NO_STAGES, Report, Stages


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded; the manifest of a folder that this child would make."""

    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Go:
    """Score into the folder, which is there by now."""


@dataclass(frozen=True, slots=True)
class Wants:
    """The child could do with a part."""


@dataclass(frozen=True, slots=True)
class Task:
    """Score this part, but for the excluded rows (each with what to say of it)."""

    part: int
    excluded: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class At:
    """What is being done with a part from now on."""

    part: int
    step: Step


@dataclass(frozen=True, slots=True)
class Progressed:
    """Rows and tokens that are done."""

    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Idle:
    """All parts are committed, but those after one that could not be read.

    Attributes:
        formats: rows by record format since the last ``Go``.
        report: where the time went so far, None where nobody asked.
        fitting_budget: where memory ran out, the token budget that it did not run out at; else None.
        unread: the part whose input could not be read, with the reason; None where all could be.
    """

    formats: Counter[str]
    report: Report | None
    fitting_budget: int | None
    unread: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Score these rows one by one, and forget the scores."""

    part: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trying:
    """A row that is about to be scored alone."""

    row: int


@dataclass(frozen=True, slots=True)
class Passed:
    """The row that was announced has not harmed the process; whether it has scores."""

    scored: bool


@dataclass(frozen=True, slots=True)
class Probed:
    """All rows of a probe have passed, unless they could not be read for this reason."""

    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The child gives up.

    Attributes:
        kind: the class of an error that another device would raise too: those that donod_fast raises on purpose.
        text: what was raised, for a message.
    """

    kind: type[DonodError] | None
    text: str


@dataclass(frozen=True)
class Child:
    """What a child is told when it starts (see :class:`donod_fast.engines.device.pool.DevicePool`)."""

    corpus: Corpus
    spec: ScorerSpec
    device: str
    out: Path | str
    part_rows: int
    workers: int
    threads: int
    profile: bool

    def run(self, pipe: Connection) -> None:
        """Be the child: the whole life of its process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it
        threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()
        link = _Link(pipe)
        try:
            self._work(link)
        except (EOFError, ConnectionError):
            pass  # the parent has closed the pipe: the run is over
        except Exception as error:
            if os.environ.get("DONOD_FAST_TRACEBACK"):
                traceback.print_exc()
            link.send(_failed(error))
        finally:
            sys.stderr.flush()
            os._exit(0)  # taking down an interpreter with torch in it can last seconds

    def _work(self, link: _Link) -> None:
        torch.set_num_threads(self.threads)
        device = torch.device(self.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else every process would also open the first one
        scorer = self.spec.on(self.device).load()
        link.send(Ready(manifest_of(self.corpus, scorer, self.part_rows)))
        stages = Stages() if self.profile else NO_STAGES
        job = link.pipe.recv()  # by now the folder is there
        scorer = scorer.resuming(self._folder.manifest)
        while True:
            link.send(self._probed(job, scorer, link) if isinstance(job, Probe) else self._scored(scorer, link, stages))
            job = link.pipe.recv()

    @cached_property
    def _folder(self) -> ScoresFolder:
        return ScoresFolder.open(self.out)

    def _scored(self, scorer: Scorer, link: _Link, stages: Stages) -> Idle:
        formats: Counter[str] = Counter()
        unread = None
        link.begin()
        try:
            formats = score_parts(
                self.corpus,
                scorer,
                self._folder,
                link.parts(),
                workers=self.workers,
                progress=link.progress,
                stages=stages,
                excluded=link.excluded,
                on_step=link.at,
            )
        except CorpusError as error:
            part = link.first_unprepared()
            if part is None:
                raise
            unread = (part, str(error))
        report = stages.report() if self.profile else None
        return Idle(formats, report, scorer.sample_scorer.fitting_budget, unread)

    def _probed(self, probe: Probe, scorer: Scorer, link: _Link) -> Probed:
        first, last = min(probe.rows), max(probe.rows)
        try:
            records = {record.row: record for record in self.corpus.records(first, last + 1)}
        except CorpusError as error:
            return Probed(str(error))
        for row in probe.rows:
            link.send(Trying(row))
            (scores,) = scorer.sample_scorer.score([scorer.masker.tokenize(records[row])])
            link.send(Passed(scores.status == Status.SCORED))
        return Probed()


class _Link:
    """The child's end of the pipe; any thread may send."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.excluded: dict[int, Mapping[int, str]] = {}
        self._steps: dict[int, Step | None] = {}  # of the parts handed out, in that order
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            self.pipe.send(message)

    def begin(self) -> None:
        """Forget the parts of the last round."""
        self.excluded.clear()
        self._steps.clear()

    def progress(self, rows: int, tokens: int) -> None:
        self.send(Progressed(rows, tokens))

    def at(self, part: int, step: Step) -> None:
        self._steps[part] = step
        self.send(At(part, step))

    def first_unprepared(self) -> int | None:
        return next((part for part, step in self._steps.items() if step is Step.UNPREPARED), None)

    def parts(self) -> Iterator[int]:
        """Part numbers from the parent, asked for one by one, as they are wanted."""
        while True:
            self.send(Wants())
            task = self.pipe.recv()
            if task is None:
                return
            self.excluded[task.part], self._steps[task.part] = task.excluded, None
            yield task.part


def _failed(error: Exception) -> Failed:
    if isinstance(error, DonodError) and not isinstance(error, WorkerError):
        return Failed(type(error), str(error))
    return Failed(None, f"failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})")


def _leave_with_parent() -> None:
    """End this process when its parent ends, however that happens."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
