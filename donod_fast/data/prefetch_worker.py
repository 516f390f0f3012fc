"""The worker process that prepares parts, and the parent's side of its pipes.

It is a fresh Python program with two pipes instead of a ``multiprocessing`` process: it does not run the caller's main
module again, and it exits when its parent exits for any reason. It receives the masker once and then one part at a
time, and loads neither torch nor the model.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import IO

from donod_fast.data.formats import carried_values, record_id
from donod_fast.data.grouping import grouped
from donod_fast.data.masking import Masker
from donod_fast.data.reading import Corpus
from donod_fast.data.reading.record_hashes import record_hash
from donod_fast.data.types import Record, Status, TokenizedSample
from donod_fast.errors import WorkerError
from donod_fast.system.terminal import guard_streams

_log = logging.getLogger(__name__)

_PROGRAM = """
import sys, pickle
sys.path[:] = pickle.load(sys.stdin.buffer)
from donod_fast.data.prefetch_worker import serve
serve()
"""
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_READY = b""
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


@dataclass(frozen=True, slots=True)
class Part:
    """A part's number, its first row and one past its last.

    ``excluded`` maps rows that no process survives to their detail text: they are read, but not tokenised.
    """

    number: int
    start: int
    stop: int
    excluded: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A part to prepare, with its records; None if the worker reads them itself."""

    part: Part
    records: list[Record] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A part's samples, or the error that prevented them.

    Attributes:
        process: id of the worker.
        spans: the steps that it did: stage, begin and seconds by ``time.perf_counter``.
        samples: one per row.
        error: the error to raise in the parent.
    """

    process: int
    spans: list[tuple[str, float, float]]
    samples: list[TokenizedSample]
    error: Exception | None = None


class WorkerProcess:
    """Parent-side handle of a worker process."""

    def __init__(self, setup: bytes) -> None:
        # In its own process group: only this process handles an interrupt at the terminal.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            process_group=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._ready = self._gone = self._killed = False
        # It reads only after its imports, and a pipe's buffer is small.
        self._sender = threading.Thread(target=self._send, args=(setup,), name="start", daemon=True)
        self._sender.start()

    def is_ready(self) -> bool:
        """Whether it accepts jobs. A worker that cannot start never does; this is logged.

        Raises:
            WorkerError: it was killed by :meth:`kill`.
        """
        if self._killed:
            raise WorkerError("the preparation processes were killed")
        if not self._ready and not self._gone and wait([self._output.fileno()], 0):
            found = _receive(self._output)
            self._ready, self._gone = found == _READY, found != _READY
            if self._gone and not self._killed:
                reason = f"exit code {self._process.wait()}" if found is None else found.decode()
                _log.warning("a preparation process cannot start (%s); rows are prepared in the main process", reason)
        return self._ready

    def ask(self, job: bytes, part: Part) -> Answer | None:
        """Have it do a job. None if it cannot unpickle the job.

        Raises:
            WorkerError: the process died meanwhile.
        """
        try:
            _send(self._input, job)
            found = _receive(self._output)
        except OSError:  # a broken pipe
            found = None
        if found is None:
            code = self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            raise WorkerError(
                f"a preparation process {how} while it prepared the rows {part.start} to {part.stop - 1} "
                "(killed, or out of memory); rerun the same command to resume"
            )
        answer: Answer | None = pickle.loads(found)
        return answer

    def kill(self) -> None:
        """Kill the process immediately."""
        self._killed = True
        self._process.kill()

    def close(self) -> None:
        """Release the resources of a killed process."""
        self._process.wait()
        self._sender.join()
        for pipe in (self._input, self._output):
            with suppress(OSError):  # unflushed data is dropped
                pipe.close()

    def _send(self, setup: bytes) -> None:
        with suppress(OSError):  # it has exited; its other pipe reports that
            self._input.write(pickle.dumps(sys.path))
            _send(self._input, setup)


def serve() -> None:
    """Main function of a worker process: set up, then do jobs until the parent closes the pipe or exits."""
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library's output must not mix with the answers
    guard_streams()
    setup = _receive(jobs)
    if setup is None:
        return
    _end_with_parent()
    with suppress(BrokenPipeError):  # the parent has exited
        try:
            masker, corpus = pickle.loads(setup)
        except Exception as error:
            _send(answers, f"{type(error).__name__}: {error}".encode())
            return
        _send(answers, _READY)
        while (job := _receive(jobs)) is not None:
            _send(answers, pickle.dumps(_work(masker, corpus, job)))


def _end_with_parent() -> None:
    """Have the kernel kill this process when its parent exits, even if a row keeps it busy for ever.

    This exists on Linux only. Elsewhere a process exits the next time it reads its pipe.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _work(masker: Masker, corpus: Corpus | None, job: bytes) -> Answer | None:
    try:
        found: Job = pickle.loads(job)
    except Exception:  # its class cannot be imported here
        return None
    part, begin, tokenizing = found.part, time.perf_counter(), 0.0
    samples: list[TokenizedSample] = []
    try:
        records: Iterable[Record] | None = found.records
        if records is None:
            assert corpus is not None
            records = corpus.records(part.start, part.stop)
        # Groups, so that not all records that this process reads itself are in memory.
        for group in grouped(records, part.stop - part.start):
            start = time.perf_counter()
            samples += tokenized(masker, group, part.excluded)
            tokenizing += time.perf_counter() - start
    except Exception as error:
        return Answer(os.getpid(), [], [], _sendable(error))
    reading = time.perf_counter() - begin - tokenizing
    spans = [("read", begin, reading)] if found.records is None else []
    return Answer(os.getpid(), [*spans, ("tokenize", begin + reading, tokenizing)], samples)


def tokenized(masker: Masker, records: Sequence[Record], excluded: Mapping[int, str]) -> list[TokenizedSample]:
    """One sample per record; the tokenizer never sees excluded records."""
    if not excluded:
        return masker.tokenize_many(records)
    kept = iter(masker.tokenize_many([record for record in records if record.row not in excluded]))
    return [_lost(masker, record, excluded[record.row]) if record.row in excluded else next(kept) for record in records]


def _lost(masker: Masker, record: Record, cause: str) -> TokenizedSample:
    detail = f"{record.file}, {record.place}: {cause}".encode("utf-8", errors="backslashreplace").decode("utf-8")
    carried = carried_values(record, masker.carry)
    return TokenizedSample(
        record.row, record_id(record), Status.WORKER_LOST, detail, carried=carried, hash=record_hash(record)
    )


def _sendable(error: Exception) -> Exception:
    """The error itself if it can be pickled, else a WorkerError with the same text."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def _send(pipe: IO[bytes], content: bytes) -> None:
    """Write a message: its length in eight bytes, then its bytes."""
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """Read a message; None if the other end is closed."""
    size = pipe.read(8)
    if len(size) < 8:
        return None
    length = int.from_bytes(size, "little")
    content = pipe.read(length)
    return content if len(content) == length else None
