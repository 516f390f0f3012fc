"""The process of one device (the child): loads the model and scores the parts that its parent sends.

Messages over the pipe: the child sends :class:`Ready` once. After every :class:`Go` it asks for parts (:class:`Wants`,
answered with a :class:`Task`, or None if there are no more), reports what it does (:class:`At`, :class:`Progressed`)
and sends :class:`Idle` when all of them are committed. After every :class:`Probe` it announces each row
(:class:`Trying`, :class:`Passed`) and sends :class:`Probed` at the end. :class:`Failed` is its last message.
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
from donod_fast.system.terminal import guard_streams
from donod_fast.system.wording import shortened


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded; with the manifest of a scores folder that this child would create."""

    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Go:
    """Start to score into the folder, which exists by now."""


@dataclass(frozen=True, slots=True)
class Wants:
    """The child asks for a part."""


@dataclass(frozen=True, slots=True)
class Task:
    """Score this part without the excluded rows (each with a description of why)."""

    part: int
    excluded: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class At:
    """A step of a part begins."""

    part: int
    step: Step


@dataclass(frozen=True, slots=True)
class Progressed:
    """Rows and tokens that were scored."""

    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Idle:
    """All parts are committed, except from a part that could not be read on.

    Attributes:
        formats: rows by record format since the last ``Go``.
        report: profile of the time so far, None unless requested.
        fitting_budget: the token budget that batches were cut to if memory ran out; else None.
        unread: the part whose input could not be read, with the reason; None if there is none.
    """

    formats: Counter[str]
    report: Report | None
    fitting_budget: int | None
    unread: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Score these rows one by one, and drop the scores."""

    part: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trying:
    """A row that is about to be scored alone."""

    row: int


@dataclass(frozen=True, slots=True)
class Passed:
    """The process survived the announced row; ``scored`` says whether the row has scores."""

    scored: bool


@dataclass(frozen=True, slots=True)
class Probed:
    """All rows of a probe have passed; or they could not be read, for the reason in ``unread``."""

    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The child stops because of an error.

    Attributes:
        kind: class of an error that another device would raise as well (one of ``donod_fast.errors``); else None.
        text: the error's message.
    """

    kind: type[DonodError] | None
    text: str


@dataclass(frozen=True)
class Child:
    """What a child gets when it starts; see :class:`donod_fast.engines.device.pool.DevicePool`."""

    corpus: Corpus
    spec: ScorerSpec
    device: str
    out: Path | str
    part_rows: int
    workers: int
    threads: int
    profile: bool

    def run(self, pipe: Connection) -> None:
        """Run the child: the main function of its process."""
        guard_streams()
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
    """The child's end of the pipe. Any thread may send."""

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
        """Part numbers from the parent, requested one by one when needed."""
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
    return Failed(None, f"failed ({type(error).__name__}: {shortened(error, 300)})")


def _leave_with_parent() -> None:
    """End this process when its parent ends for any reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
