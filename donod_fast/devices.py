"""Several devices of one machine: a process each, and one queue of parts that they all draw from.

The parent opens the corpus, holds the folder's manifest, hands out part numbers and shows the progress; it computes
nothing. A child loads the model on its device, and for each part that it is given reads, scores and commits the rows
itself. So no device waits for another but at the very end, and what a part holds does not depend on who scored it.

Parent and child talk over a pipe of their own, not over a shared queue: a process that is killed while it holds a
queue's lock would leave the others waiting for ever.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from donod_fast.device_child import Child, Failed, Go, Idle, Progressed, Ready, Wants
from donod_fast.errors import InputError, ModelError, WorkerError
from donod_fast.pipeline import Outcome
from donod_fast.placement import one_device
from donod_fast.prepare import default_workers
from donod_fast.profiling import Report
from donod_fast.reading import Corpus
from donod_fast.scorer import PART_ROWS
from donod_fast.scoring import Progress
from donod_fast.spec import ScorerSpec
from donod_fast.store import ScoresFolder, differences, remove

log = logging.getLogger(__name__)

CONTEXT = multiprocessing.get_context("spawn")
"""How processes are started: CUDA does not survive a fork."""

MOST_TRIES = 3
"""How often a part is handed out: whatever ends three processes is no accident."""

_POLL_SECONDS = 1.0  # a death that closes no pipe is seen within this
_PATIENCE_SECONDS = 5.0  # for a process that has been asked to end


def parse_devices(text: str) -> list[str]:
    """Read ``"all"`` (every CUDA device) or names such as ``"cuda:0,cuda:2"`` and ``"cpu,cpu"``.

    Raises:
        InputError: there is no such device here, or an accelerator is named twice.
    """
    if text.strip() == "all":
        count = torch.cuda.device_count()
        if not count:
            raise InputError("devices 'all': PyTorch sees no CUDA device here; use --device cpu")
        return [f"cuda:{index}" for index in range(count)]
    names = []
    for name in text.split(","):
        device = one_device(name.strip())
        names.append(f"cuda:{device.index or 0}" if device.type == "cuda" else device.type)
    twice = [name for name, number in Counter(names).items() if number > 1 and name != "cpu"]
    if twice:
        raise InputError(f"devices {text!r}: {twice[0]} is named twice; one process has all of it")
    return names


def score_on_devices(
    corpus: Corpus,
    spec: ScorerSpec,
    out: Path,
    devices: Sequence[str],
    *,
    part_rows: int = PART_ROWS,
    overwrite: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> Outcome:
    """Score a corpus into a folder that the caller holds (``store.locked``), with one process for each device.

    As :func:`donod_fast.pipeline.score_corpus`, and resumable with any other devices. A device that is lost on the way
    is reported in the log, and its rows go to the others. A program that calls this has to be importable
    without running (``if __name__ == "__main__"``): the processes are spawned.

    Args:
        corpus: what to score; every process gets a copy (of its description, not of the files).
        spec: how to load the scorer.
        out: the scores folder.
        devices: as :func:`parse_devices` gives them.
        part_rows: rows of a part.
        overwrite: drop the scores that the folder holds.
        progress: called in this process.
        workers: processes of each device that tokenise ahead of it; None for what suits device, rows and cores.
        on_report: called at the end with the times of each device; None where nobody wants them.

    Raises:
        SettingsMismatchError: the folder holds scores made with other settings.
        ModelError: the model cannot be loaded on a device, or is not the same one on all of them.
        WorkerError: a part could not be scored by any device, or no device is left; names device, rows and cause.
            Parts committed so far stay.
        StoreError, CorpusError, InputError: as for ``score_corpus``.
    """
    if part_rows < 1:
        raise InputError(f"part_rows must be at least 1, got {part_rows}")
    if not devices:
        raise InputError("devices is empty; name at least one")
    if workers is not None and workers < 0:
        raise InputError(f"workers must be at least 0, got {workers}")
    threads = max(1, torch.get_num_threads() // len(devices))
    run = _Run(out, list(devices), overwrite, progress)
    try:
        for device in devices:
            ahead = _workers_of_each(devices, corpus.rows) if workers is None else workers
            run.start(Child(corpus, spec, device, out, part_rows, ahead, threads, on_report is not None))
        outcome = run.until_done()
    finally:
        run.end()
    for report in run.reports:
        assert on_report is not None
        on_report(report)
    return outcome


def _workers_of_each(devices: Sequence[str], rows: int) -> int:
    """The preparation processes of each device: as for one, but the cores are shared."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    alone = min(default_workers(torch.device(device).type, rows // len(devices)) for device in devices)
    return max(0, min(alone, cores // len(devices) - 1))


@dataclass(eq=False)
class _Handle:
    """The parent's side of a child.

    Attributes:
        device: its device.
        process: the process.
        pipe: this end of its pipe.
        ready: whether it has loaded the model.
        idle: whether it has finished all that it was given.
        parts: part numbers that it was given, as far as they are not known to be committed.
        rows: progress reported beyond the parts that are known to be committed.
        report: where its time went.
        fitting_budget: where it ran out of memory, the token budget that it came down to.
    """

    device: str
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    idle: bool = False
    parts: list[int] = field(default_factory=list)
    rows: int = 0
    report: Report | None = None
    fitting_budget: int | None = None


class _Run:
    """What the parent knows of a run: who is there, what is left, what failed how often."""

    def __init__(self, out: Path, devices: list[str], overwrite: bool, progress: Progress | None) -> None:
        self._out, self._devices, self._overwrite = out, devices, overwrite
        self._progress: Progress = progress or (lambda rows, tokens: None)
        self._children: list[_Handle] = []
        self._folder: ScoresFolder | None = None
        self._queue: deque[int] = deque()
        self._tries: Counter[int] = Counter()
        self._formats: Counter[str] = Counter()
        self._resumed = 0

    @property
    def reports(self) -> list[Report]:
        """Of the devices that scored to the end."""
        return [child.report for child in self._children if child.report is not None]

    def start(self, child: Child) -> None:
        """Start a child."""
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=child.run, args=(there,), name=f"donod-fast {child.device}")
        # An interrupt of the terminal goes to every process of the group; the parent alone answers it.
        with _interrupts_held():
            try:
                process.start()
            except (TypeError, AttributeError, ValueError) as error:  # what pickle raises
                raise InputError(f"cannot hand corpus and settings to another process: {error}") from error
            self._children.append(_Handle(child.device, process, here))
        there.close()  # so that its end shows here

    def until_done(self) -> Outcome:
        """Serve the children until every part is committed."""
        while self._folder is None or self._queue or any(child.ready and not child.idle for child in self._children):
            by_pipe = {child.pipe: child for child in self._children}
            for pipe in wait(list(by_pipe), timeout=_POLL_SECONDS):
                child = by_pipe[pipe]  # type: ignore[index]
                try:
                    message = child.pipe.recv()
                except (EOFError, OSError):
                    self._lost(child, None)
                else:
                    self._answer(child, message)
            for child in [c for c in self._children if c.process.exitcode is not None and not c.pipe.poll()]:
                self._lost(child, None)
            self._set_to_work()
        for child in self._children:
            if child.fitting_budget is not None:
                log.warning(
                    "%s: memory ran out; --token-budget %d would have fitted", child.device, child.fitting_budget
                )
        return Outcome(self._folder, self._folder.counts(), self._resumed, self._formats)

    def end(self) -> None:
        """Leave no process behind, and no half-written file."""
        for child in self._children:
            child.pipe.close()
            if child.process.exitcode is None:
                child.process.terminate()
        for child in self._children:
            _ended(child.process)
            self._tidy(child)

    def _answer(self, child: _Handle, message: object) -> None:
        match message:
            case Wants():
                self._send(child, self._next_part(child))
            case Progressed(rows, tokens):
                child.rows += rows
                self._progress(rows, tokens)
            case Idle(formats, report, fitting_budget):
                self._formats.update(formats)
                child.report, child.fitting_budget = report, fitting_budget
                self._forget_committed(child)
                if child.parts:
                    raise WorkerError(f"{child.device}: ended without committing {self._rows_of(child.parts[0])}")
                child.idle = True
            case Ready(manifest):
                self._admit(child, manifest)
            case Failed():
                self._lost(child, message)

    def _admit(self, child: _Handle, manifest: Mapping[str, Any]) -> None:
        """Take a child that has loaded the model; with the first one the folder is opened."""
        child.ready = child.idle = True
        if self._folder is None:
            manifest = {**manifest, "model": {**manifest["model"], "device": self._devices}}
            self._folder = ScoresFolder.open_or_create(self._out, manifest, overwrite=self._overwrite)
            self._queue.extend(self._folder.missing_parts())
            left = sum(stop - start for start, stop in map(self._folder.part_range, self._queue))
            self._resumed = self._folder.rows - left
            if self._resumed:
                self._progress(self._resumed, 0)
        elif unlike := differences(self._folder.manifest, manifest, ("in the folder", f"on {child.device}")):
            raise ModelError(
                f"{child.device} does not score as the first device did:\n  " + "\n  ".join(unlike)
                + "\nName devices of one kind, or give --dtype and --revision."
            )  # fmt: skip

    def _set_to_work(self) -> None:
        """Wake the children that have nothing to do, as long as there is something."""
        if self._folder is None:
            return
        for child in [child for child in self._children if child.idle][: len(self._queue)]:
            child.idle = False
            self._send(child, Go(self._folder.manifest))

    def _next_part(self, child: _Handle) -> int | None:
        """The next part for a child, None where it had better finish what it has.

        Children ask ahead. Towards the end none gets more ahead than is left for each of the others, so that all
        of them end at the same time.
        """
        self._forget_committed(child)
        if not self._queue or len(self._queue) < len(child.parts) * len(self._children):
            return None
        part = self._queue.popleft()
        self._tries[part] += 1
        child.parts.append(part)
        return part

    def _forget_committed(self, child: _Handle) -> None:
        assert self._folder is not None
        for part in list(child.parts):
            if self._folder.part_path(part).exists():  # renamed into place, so whole
                start, stop = self._folder.part_range(part)
                child.rows -= stop - start
                child.parts.remove(part)

    def _lost(self, child: _Handle, failure: Failed | None) -> None:
        """Part with a child: what it had goes back to the queue, or the run ends with the reason."""
        self._children.remove(child)
        child.pipe.close()
        _ended(child.process)
        cause = _death(child.process.exitcode) if failure is None else failure.text
        if failure is not None and failure.kind is not None:
            # Nothing that another device would do better: the model, the corpus or the folder is at fault.
            raise failure.kind(f"{child.device}: {cause}")
        if not child.ready or self._folder is None:
            raise ModelError(f"{child.device}: the process that loads the model there {cause}")
        self._tidy(child)
        self._forget_committed(child)
        if child.rows:
            self._progress(-child.rows, 0)  # they will be scored, and reported, again
        given_up = [part for part in child.parts if self._tries[part] >= MOST_TRIES]
        if given_up or (not self._children and (child.parts or self._queue)):
            part = min(given_up or child.parts or self._queue)
            why = f"after {MOST_TRIES} tries" if given_up else "and no device is left"
            raise WorkerError(
                f"{child.device}: the process {cause} at {self._rows_of(part)}, {why}; "
                "what is committed stays, and the same command resumes"
            )
        log.warning("%s: the process %s; the other devices go on", child.device, cause)
        self._queue.extendleft(reversed(child.parts))
        child.parts.clear()

    def _tidy(self, child: _Handle) -> None:
        """Remove what a process that has ended was writing."""
        for file in self._out.glob(f".*.{child.process.pid}.tmp"):
            remove(file)

    def _rows_of(self, part: int) -> str:
        assert self._folder is not None
        start, stop = self._folder.part_range(part)
        return f"rows {start} to {stop - 1}"

    def _send(self, child: _Handle, message: Go | int | None) -> None:
        with suppress(OSError):  # it is dead, and that will be seen by its pipe
            child.pipe.send(message)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Interrupts wait until afterwards, and never come to the processes that are started within."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # started within, it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ended(process: BaseProcess) -> None:
    """Wait for a process that is about to end; kill it where it does not."""
    process.join(_PATIENCE_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"was killed ({name}" + (", as where the host's memory runs out)" if name == "SIGKILL" else ")")
    return f"was killed (signal {-code})"


__all__ = ["MOST_TRIES", "parse_devices", "score_on_devices"]
