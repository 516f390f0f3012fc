"""A pool with one process for each device. The processes take parts from one queue, and lost processes are replaced.

The parent owns the folder's manifest, hands out part numbers and reports the progress; it computes nothing. A child
(``child.py``) loads the model on its device, and reads, scores and commits each part that it gets. So no device waits
for another before the end, and the content of a part does not depend on who scored it.

Parent and child have a pipe of their own instead of a shared queue: a process that is killed while it holds the lock of
a queue would leave the others waiting forever.

A child that dies, or that makes no progress for too long and is killed, is replaced. ``isolation.py`` decides what
happens to the part that it was scoring.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from donod_fast.criteria.running import fingerprints
from donod_fast.data.prefetch import default_workers
from donod_fast.data.reading import Corpus
from donod_fast.engines.device.child import At, Child, Failed, Idle, Passed, Probed, Progressed, Ready, Trying, Wants
from donod_fast.engines.device.process import DeviceProcess, Slot
from donod_fast.engines.device.queue import Work
from donod_fast.engines.isolation import LOADING_SECONDS, MOST_TRIES
from donod_fast.engines.prologue import open_folder
from donod_fast.engines.request import OnProblem, RunOptions
from donod_fast.errors import InputError, ModelError, WorkerError
from donod_fast.scores.folder import ScoresFolder, differences, remove
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.scoring.spec import ScorerSpec
from donod_fast.system.files import temporary_name
from donod_fast.system.profiling import Report
from donod_fast.system.storage import open_storage

log = logging.getLogger(__name__)


_POLL_SECONDS = 1.0  # a death that closes no pipe is seen within this


class DevicePool:
    """Scores parts into a folder. The caller holds the folder's lock; the processes live from call to call.

    Use it as a context manager, so that no process is left behind. The processes are spawned, so a program that uses it
    must be importable without side effects (``if __name__ == "__main__"``). Use it from one thread only.

    Args:
        corpus: what to score; every process gets a copy of its description, not of the files.
        spec: how to load the scorer.
        out: the scores folder, a path or a URL.
        devices: as :func:`donod_fast.engines.devices.parse_devices` gives them.
        options: how to run.
        profile: have the processes record where their time goes.

    Raises:
        InputError: ``devices`` is empty.
    """

    def __init__(
        self,
        corpus: Corpus,
        spec: ScorerSpec,
        out: Path | str,
        devices: Sequence[str],
        options: RunOptions = RunOptions(),
        *,
        profile: bool = False,
    ) -> None:
        if not devices:
            raise InputError("devices is empty; name at least one")
        self._corpus, self._out, self._devices = corpus, out, list(devices)
        self._options = options
        self._wanted = fingerprints(spec.signals)
        self._on_problem: OnProblem = _unheard
        ahead = _workers_of_each(devices, corpus.rows) if options.workers is None else options.workers
        threads = max(1, torch.get_num_threads() // len(devices))
        self._slots = [
            Slot(Child(corpus, spec, device, out, options.part_rows, ahead, threads, profile)) for device in devices
        ]
        self._children: list[DeviceProcess] = []
        self._folder: ScoresFolder | None = None
        self._work: Work | None = None
        self._formats: Counter[str] = Counter()
        self._budgets: dict[str, int] = {}
        self._told_budgets: dict[str, int] = {}
        self._attended = time.monotonic()
        self._is_started = False

    def __enter__(self) -> DevicePool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def reports(self) -> list[Report]:
        """Where the time went, by device, for the processes that are alive."""
        return [child.report for child in self._children if child.report is not None]

    def open(self) -> ScoresFolder:
        """Start the processes, and open or create the folder as soon as the first one has loaded the model.

        Raises:
            SettingsMismatchError: the folder holds scores made with other settings.
            ModelError: the model cannot be loaded on a device.
            StoreError, CorpusError, InputError: as for ``score_corpus``.
        """
        if not self._is_started:
            self._is_started = True
            for slot in self._slots:
                self._children.append(DeviceProcess(slot, is_first=True))
        while self._folder is None:
            try:
                self._attend()
            except Exception:
                if self._folder is None:  # its first process waits for an answer that will not come
                    self.close()
                    self._is_started = False
                raise
        return self._folder

    def score(
        self, parts: Sequence[int], progress: Progress | None = None, on_problem: OnProblem | None = None
    ) -> Counter[str]:
        """Score missing parts. All of them are committed when it returns.

        A process that dies or hangs is replaced, and a row that ends every process that scores it gets the status
        ``worker_lost``. If parts cannot be scored or read, all others are scored before the error is raised, and the
        pool can be used again. After any other error the pool must be closed.

        Args:
            parts: their numbers. In rising order the corpus is read once.
            progress: called in this process, with rows and tokens as they are scored.
            on_problem: called for every process that is lost and every row that is left out.

        Returns:
            rows by record format, without those of processes that were lost.

        Raises:
            CorpusError: an input of some parts cannot be read; all other parts are committed.
            WorkerError: parts could not be scored, or no device is left; names device, rows and cause.
            ModelError: the model is not the same one on all devices.
            StoreError: a part cannot be written.
        """
        folder = self.open()
        self._on_problem = on_problem or _unheard
        work = Work(folder, self._wanted, parts, progress or _unseen, self._on_problem)
        self._work, self._formats = work, Counter()
        while not work.is_handed_out or any(child.ready and not child.idle for child in self._children):
            work.hand_out([child for child in self._children if child.idle])
            self._attend()
        self._work = None
        self._tell_budgets()
        work.raise_what_is_left()
        return self._formats

    def close(self) -> None:
        """Leave no process behind, and no half-written file."""
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.ended()
            self._tidy(child)
        self._children.clear()

    # --- messages of the children

    def _attend(self) -> None:
        """Read messages of the children for a while, and look for children that ended."""
        if not self._children:
            raise WorkerError("no device is left; what is committed stays, and the same command resumes")
        by_pipe = {child.pipe: child for child in self._children}
        for pipe in wait(list(by_pipe), timeout=_POLL_SECONDS):
            child = by_pipe[pipe]  # type: ignore[index]
            try:
                message = child.pipe.recv()
            except (EOFError, OSError):
                self._lost(child, None)
            else:
                child.heard = time.monotonic()
                self._answer(child, message)
        for child in [child for child in self._children if child.has_ended]:
            self._lost(child, None)
        self._end_silent()

    def _end_silent(self) -> None:
        """Kill children that have been silent for too long."""
        away = time.monotonic() - self._attended - 2 * _POLL_SECONDS
        self._attended = time.monotonic()
        for child in list(self._children):
            if away > 0:  # this process was stopped or busy, and read no messages
                child.heard += away
            patience = self._options.stall_timeout if child.ready else max(self._options.stall_timeout, LOADING_SECONDS)
            if child.silent_for() < patience:
                continue
            if self._work is not None and self._work.forget_committed(child):
                child.heard = time.monotonic()
                continue
            child.kill()
            self._lost(child, None, f"did not answer for {patience:g} s")

    def _answer(self, child: DeviceProcess, message: object) -> None:
        match message:
            case Ready(manifest):
                self._admit(child, manifest)
            case Failed():
                self._lost(child, message)
            case At():
                child.steps_to(message)
            case _:
                self._note(child, message)

    def _note(self, child: DeviceProcess, message: object) -> None:
        """Handle a message about work that the child was given."""
        assert self._work is not None
        match message:
            case Wants():
                self._work.answer_wish(child, len(self._children))
            case Progressed(rows, tokens):
                self._work.progressed(child, rows, tokens)
            case Trying(row):
                child.trying = row
            case Passed(scored):
                self._work.passed(child, scored)
            case Probed(unread):
                self._work.probed(child, unread)
            case Idle(formats, report, budget, unread):
                self._work.finished(child, unread)
                self._formats.update(formats)
                child.report = report
                if budget is not None:
                    self._budgets[child.device] = budget

    def _admit(self, child: DeviceProcess, manifest: Mapping[str, Any]) -> None:
        """Accept a child that has loaded the model. The first one opens the folder."""
        child.ready = child.idle = True
        if self._folder is None:
            manifest = {**manifest, "model": {**manifest["model"], "device": self._devices}}
            self._folder = open_folder(self._out, self._corpus, manifest, self._options)
        elif unlike := differences(self._folder.manifest, manifest, ("in the folder", f"on {child.device}")):
            raise ModelError(
                f"{child.device} does not score as the first device did:\n  " + "\n  ".join(unlike)
                + "\nName devices of one kind, or give --dtype and --revision."
            )  # fmt: skip

    # --- lost children

    def _lost(self, child: DeviceProcess, failure: Failed | None, cause: str | None = None) -> None:
        """Remove a child and replace it, or raise the reason why the run ends."""
        self._children.remove(child)
        how = child.ended()
        cause = cause or (how if failure is None else failure.text)
        kind = None if failure is None else failure.kind
        if kind is not None and (child.ready or child.is_first):
            # Another process would also fail: the model, the corpus or the folder is at fault.
            raise kind(f"{child.device}: {cause}")
        if self._folder is None:  # no process has loaded the model so far, nothing is lost
            raise ModelError(f"{child.device}: the process that loads the model there {cause}")
        self._tidy(child)
        child.slot.strikes += 1
        where = "" if child.ready else " while it loaded the model"
        if self._work is not None and child.ready:
            where = self._work.lost(child, failure, cause)
        if child.slot.strikes < MOST_TRIES:
            log.warning("%s: the process %s%s; another takes its place", child.device, cause, where)
            self._children.append(DeviceProcess(child.slot, is_first=False))
            return
        given_up = f"{child.device}: the process {cause}{where}, the last of {MOST_TRIES} in a row"
        if not self._children:
            raise WorkerError(
                f"{given_up}, and no device is left; what is committed stays, and the same command resumes"
            )
        log.warning("%s; the other devices go on without", given_up)
        self._on_problem(None, f"{given_up}; the device is given up")

    def _tidy(self, child: DeviceProcess) -> None:
        """Remove unfinished files of a process that has ended."""
        folder = open_storage(self._out).local
        for file in [] if folder is None else folder.glob(temporary_name("*", str(child.id))):
            remove(file)

    def _tell_budgets(self) -> None:
        for device, budget in self._budgets.items():
            if self._told_budgets.get(device) != budget:
                log.warning("%s: memory ran out; --token-budget %d would have fitted", device, budget)
        self._told_budgets.update(self._budgets)


def _workers_of_each(devices: Sequence[str], rows: int) -> int:
    """The number of preparation processes of each device. The devices share the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    alone = min(default_workers(torch.device(device).type, rows // len(devices)) for device in devices)
    return max(0, min(alone, cores // len(devices) - 1))


def _unseen(rows: int, tokens: int) -> None:
    """Drop a report of progress."""


def _unheard(part: int | None, text: str) -> None:
    """Ignore a report of a problem; the log has it as well."""


__all__ = ["DevicePool"]
