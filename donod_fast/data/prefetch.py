"""Prepare parts ahead of the device (read, format, render, tokenise, mask) in worker processes or in one thread.

``prefetch_worker.py`` has the worker processes. Until they have started, this process prepares parts itself, so that
the device does not wait.

The workers read JSON Lines files themselves, since they can start at any row. A thread of this process reads any other
input once, in order, and sends its records to the workers.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from queue import Empty, Full, Queue

from donod_fast.data.grouping import grouped
from donod_fast.data.masking import Masker
from donod_fast.data.prefetch_worker import Job, Part, WorkerProcess, tokenized
from donod_fast.data.reading import Corpus
from donod_fast.data.types import Record, TokenizedSample
from donod_fast.errors import WorkerError
from donod_fast.system.profiling import NO_STAGES, Stages

_log = logging.getLogger(__name__)

MOST_WORKERS = 4
WORKER_ROWS = 4096
"""Number of rows from which worker processes are worth the second or two that they take to start."""

# How long a part waits for a starting worker before it is offered to this process again.
_START_WAIT = 0.05
# How long threads that wait for each other take at most to see that the preparation is over.
_CLOSE_WAIT = 0.1

Prepared = tuple[Part, list[TokenizedSample]]


class Step(StrEnum):
    """The step that a part is in."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    UNPREPARED = "unprepared"  # its preparation raised an error
    SCORING = "scoring"
    SCORED = "scored"


OnStep = Callable[[int, Step], None]
"""Called with a part's number when a step begins; in any thread."""


def no_step(part: int, step: Step) -> None:
    """Ignore the report."""


def default_workers(device_type: str, rows: int) -> int:
    """Number of worker processes per device: none on a CPU, whose cores are the device, or for few rows."""
    if device_type == "cpu" or rows < WORKER_ROWS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MOST_WORKERS, cores - 1))


def prepared(
    corpus: Corpus,
    masker: Masker,
    parts: Iterable[Part],
    workers: int = 0,
    stages: Stages = NO_STAGES,
    on_step: OnStep = no_step,
) -> Generator[Prepared, None, None]:
    """Yield the parts with their samples, in the order given; ``max(1, workers)`` parts are prepared ahead.

    The results do not depend on ``workers``. With 0, or if the masker or the corpus cannot be sent to another
    process, one thread of this process prepares the parts. Closing the generator stops the workers.

    Raises:
        CorpusError: an input cannot be read.
        WorkerError: a worker process was killed from outside while it prepared a part.
    """
    local = _Local(PartReader(corpus), masker, stages, on_step)
    # Plain JSON Lines can be read from near any row. Rows given from Python are not copied to every worker.
    they_read = starts_anywhere(corpus, 0, corpus.rows, frozenset({"jsonl"}))
    setup = _setup(masker, corpus if they_read else None) if workers else None
    if setup is None:
        with ThreadPoolExecutor(1, "prepare") as pool:
            yield from _ahead(parts, lambda part: pool.submit(local.prepare, part), 1)
        return
    team = _Team(local, setup, workers, they_read=they_read)
    try:
        yield from _ahead(parts, team.submit, workers)
    finally:
        team.close()


def _setup(masker: Masker, corpus: Corpus | None) -> bytes | None:
    """The first message to a worker; None if it cannot be pickled."""
    if sys.platform == "win32":  # pipes cannot be polled there
        return None
    try:
        return pickle.dumps((masker, corpus))
    except Exception as error:  # a tokenizer may contain any object
        _log.warning("rows are prepared in the main process: the tokenizer cannot be pickled (%s)", error)
        return None


def _ahead(
    parts: Iterable[Part], submit: Callable[[Part], Future[list[TokenizedSample]]], count: int
) -> Iterator[Prepared]:
    coming: deque[tuple[Part, Future[list[TokenizedSample]]]] = deque()
    try:
        for part in parts:
            coming.append((part, submit(part)))
            if len(coming) > count:
                first, future = coming.popleft()
                yield first, future.result()
        while coming:
            first, future = coming.popleft()
            yield first, future.result()
    finally:
        for _, future in coming:
            future.cancel()


class PartReader:
    """Reads parts of a corpus; while their rows ascend, no input is read more than once."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._records: Iterator[Record] = iter(())
        self._next = 0  # row of the next record; 0 before the first part

    def read(self, part: Part) -> list[Record]:
        """The part's records.

        Raises:
            CorpusError: an input cannot be read, or has changed.
        """
        return list(self.stream(part))

    def stream(self, part: Part) -> Iterator[Record]:
        """The part's records one by one. The next part may be read when all of them have been taken.

        Raises:
            CorpusError: an input cannot be read, or has changed.
        """
        skipped = part.start - self._next
        if self._next == 0 or skipped < 0 or (skipped and starts_anywhere(self._corpus, part.start, part.stop)):
            self._records, skipped = self._corpus.records(part.start), 0
        self._next = 0  # until all are taken: a part that is given up is read again
        yield from islice(self._records, skipped, skipped + part.stop - part.start)
        self._corpus.check_unchanged(part.start, part.stop)  # before the part is committed
        self._next = part.stop


_ANYWHERE = frozenset({"jsonl", "saved", "hub", "rows"})


def starts_anywhere(corpus: Corpus, start: int, stop: int, kinds: Set[str] = _ANYWHERE) -> bool:
    """Whether all inputs with rows in ``start`` to ``stop`` are of these kinds and can be read from any row."""
    first = 0
    for source in corpus.describe()["inputs"]:
        last = first + source["rows"]
        if first < stop and start < last and (source["kind"] not in kinds or source.get("compression")):
            return False
        first = last
    return True


@dataclass(frozen=True, slots=True)
class _Local:
    """Preparation in this process."""

    reader: PartReader
    masker: Masker
    stages: Stages
    on_step: OnStep

    def prepare(self, part: Part) -> list[TokenizedSample]:
        with self.preparing(part):
            return self.read_and_tokenize(part)

    def read_and_tokenize(self, part: Part) -> list[TokenizedSample]:
        """In groups of records, so that not all of the part's records are in memory."""
        return [sample for group in self.groups(part) for sample in self.tokenize(part, group)]

    @contextmanager
    def preparing(self, part: Part) -> Iterator[None]:
        self.on_step(part.number, Step.PREPARING)
        try:
            yield
        except BaseException:
            self.on_step(part.number, Step.UNPREPARED)
            raise
        self.on_step(part.number, Step.PREPARED)

    def groups(self, part: Part) -> Iterator[list[Record]]:
        """The part's records, in groups that fit in memory."""
        groups = grouped(self.reader.stream(part), part.stop - part.start)
        while True:
            with self.stages.stage("read"):
                group = next(groups, None)
            if group is None:
                return
            yield group

    def tokenize(self, part: Part, records: list[Record]) -> list[TokenizedSample]:
        with self.stages.stage("tokenize"):
            return tokenized(self.masker, records, part.excluded)


class _Feed:
    """Groups of a part's records, from the thread that reads to the one that prepares the part; few are waiting."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing
        # A part of usual size, which is one group, and its end: the next part is then read without waiting.
        self._queue: Queue[list[Record] | Exception | None] = Queue(2)

    def fill(self, groups: Iterable[list[Record]]) -> None:
        """Hand over all groups, or the error that ends them."""
        try:
            for group in groups:
                self._put(group)
            self._put(None)
        except Exception as error:
            self._put(error)

    def __iter__(self) -> Iterator[list[Record]]:
        while not self._closing.is_set():
            try:
                found = self._queue.get(timeout=_CLOSE_WAIT)
            except Empty:
                continue
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            yield found
        raise WorkerError("the preparation was stopped")

    def _put(self, item: list[Record] | Exception | None) -> None:
        while not self._closing.is_set():
            with suppress(Full):
                self._queue.put(item, timeout=_CLOSE_WAIT)
                return


class _Team:
    """Worker processes, each with a thread of this process that communicates with it."""

    def __init__(self, local: _Local, setup: bytes, workers: int, *, they_read: bool) -> None:
        self._local, self._is_local, self._they_read = local, threading.Lock(), they_read
        self._closing = threading.Event()
        self._reading = ThreadPoolExecutor(1, "read")
        self._pool = ThreadPoolExecutor(workers, "prepare")
        self._workers = tuple(WorkerProcess(setup) for _ in range(workers))
        self._free = list(self._workers)

    def submit(self, part: Part) -> Future[list[TokenizedSample]]:
        """Give a part to the first free worker."""
        if self._they_read:
            return self._pool.submit(self._prepare, part, None)
        feed = _Feed(self._closing)
        self._reading.submit(feed.fill, self._local.groups(part))
        return self._pool.submit(self._prepare, part, feed)

    def close(self) -> None:
        """Kill the processes, even in the middle of a part."""
        self._closing.set()
        for worker in self._workers:
            worker.kill()
        self._reading.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _prepare(self, part: Part, feed: _Feed | None) -> list[TokenizedSample]:
        with self._local.preparing(part):
            return self._prepare_anywhere(part, feed)

    def _prepare_anywhere(self, part: Part, feed: _Feed | None) -> list[TokenizedSample]:
        worker = self._free.pop()  # there are as many workers as threads
        try:
            while not worker.is_ready():
                if self._is_local.acquire(timeout=_START_WAIT):
                    try:
                        if feed is None:
                            return self._local.read_and_tokenize(part)
                        return [sample for group in feed for sample in self._local.tokenize(part, group)]
                    finally:
                        self._is_local.release()
            if feed is None:
                return self._asked(worker, part, None)
            return [sample for group in feed for sample in self._asked(worker, part, group)]
        finally:
            self._free.append(worker)

    def _asked(self, worker: WorkerProcess, part: Part, records: list[Record] | None) -> list[TokenizedSample]:
        """The samples of a part that the worker reads itself, or of some records."""
        try:
            job = pickle.dumps(Job(part, records))
        except Exception:  # rows given from Python may contain any object
            answer = None
        else:
            answer = worker.ask(job, part)
        if answer is None:
            with self._is_local:
                if records is None:
                    return self._local.read_and_tokenize(part)
                return self._local.tokenize(part, records)
        for name, begin, seconds in answer.spans:
            self._local.stages.elsewhere(name, begin, seconds, answer.process)
        if answer.error is not None:
            raise answer.error
        return answer.samples


__all__ = ["OnStep", "Part", "PartReader", "Step", "default_workers", "no_step", "prepared", "starts_anywhere"]
