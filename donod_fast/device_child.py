"""The process of one device: loads the model there, and scores the parts that its parent hands out.

What goes over the pipe: the child sends :class:`Ready` once; then for every :class:`Go` it asks for parts
(:class:`Wants`, answered with a number, or None for no more), reports (:class:`Progressed`) and ends
with :class:`Idle` when all of them are committed. :class:`Failed` is its last word.
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
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from donod_fast.budget import settled
from donod_fast.errors import DonodError, WorkerError
from donod_fast.pipeline import manifest_of, score_parts
from donod_fast.profiling import NO_STAGES, Report, Stages
from donod_fast.reading import Corpus
from donod_fast.spec import ScorerSpec
from donod_fast.store import ScoresFolder


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded; the manifest of a folder that this child would make."""

    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Go:
    """Score into the folder of this manifest."""

    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wants:
    """The child could do with a part."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """Rows and tokens that are done."""

    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Idle:
    """All parts are committed.

    Attributes:
        formats: rows by record format since the last ``Go``.
        report: where the time went so far, None where nobody asked.
        fitting_budget: where memory ran out, the token budget that it did not run out at; else None.
    """

    formats: Counter[str]
    report: Report | None
    fitting_budget: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The child gives up.

    Attributes:
        kind: the class of an error that another device would raise too: those that donod_fast raises on purpose.
        text: what was raised, for a message.
    """

    kind: type[DonodError] | None
    text: str


@dataclass(frozen=True, slots=True)
class Child:
    """What a child is told when it starts (see :func:`donod_fast.devices.score_on_devices`)."""

    corpus: Corpus
    spec: ScorerSpec
    device: str
    out: Path
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
        while True:
            manifest = link.pipe.recv().manifest
            if self.spec.token_budget is None:
                scorer.samples.token_budget = settled(scorer.samples.token_budget, manifest.get("token_budget"))
            folder = ScoresFolder(self.out, manifest)
            formats = score_parts(
                self.corpus,
                scorer,
                folder,
                link.parts(),
                workers=self.workers,
                progress=link.progress,
                stages=stages,
            )
            link.send(Idle(formats, stages.report() if self.profile else None, scorer.samples.fitting_budget))


class _Link:
    """The child's end of the pipe; any thread may send."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            self.pipe.send(message)

    def progress(self, rows: int, tokens: int) -> None:
        self.send(Progressed(rows, tokens))

    def parts(self) -> Iterator[int]:
        """Part numbers from the parent, asked for one by one, as they are wanted."""
        while True:
            self.send(Wants())
            part = self.pipe.recv()
            if part is None:
                return
            yield part


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
