"""Judge many samples in parallel; equal programs are judged once, and cached verdicts are reused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError
from donod_fast.evaluation.judging import Verdict
from donod_fast.evaluation.lines import line_writer, whole_lines
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.samples import Sample
from donod_fast.evaluation.stored import verdict_of
from donod_fast.system.checked_json import DamagedError, checked_line

if TYPE_CHECKING:
    from donod_fast.evaluation.stoppable import StoppableSandbox

JUDGE_VERSION = 2
"""Part of every verdict's key; incremented whenever the judge may give a different verdict on the same program."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a sample.

    Attributes:
        task_id: the sample's task.
        index: the sample's number.
        key: hash of everything that the verdict depends on; see :func:`verdict_key`.
        verdict: the verdict.
        cached: True if no program was run for it.
    """

    task_id: str
    index: int
    key: str
    verdict: Verdict
    cached: bool

    def as_dict(self) -> dict[str, Any]:
        """A line of ``verdicts.jsonl``."""
        return {"task_id": self.task_id, "sample": self.index, **_stored(self.key, self.verdict)}


def verdict_key(problem: Problem, program: str, conditions: Mapping[str, Any]) -> str:
    """SHA-256 of everything that a verdict depends on: the task's tests, the program, the limits and the isolation."""
    parts = [JUDGE_VERSION, problem.digest, program, dict(sorted(conditions.items()))]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


def stored_verdicts(path: Path) -> dict[str, Verdict]:
    """The verdicts of a file (a cache, or a folder's ``verdicts.jsonl``) by their keys."""
    found = {}
    for line in whole_lines(path):
        with suppress(DamagedError):  # not a verdict
            key, verdict = verdict_of(line)
            found[key] = verdict
    return found


def judge_samples(
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    sandbox: StoppableSandbox,
    *,
    seconds: float,
    conditions: Mapping[str, Any],
    workers: int | None = None,
    stores: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
) -> list[Judgement]:
    """Judge samples and return the judgements in the same order.

    Args:
        problems: the tasks.
        samples: programs for them.
        sandbox: the sandbox to run them in.
        seconds: time limit of one program; see :func:`donod_fast.evaluation.judging.judge`.
        conditions: further conditions that verdicts depend on, for their keys.
        workers: programs that run concurrently; None: the number of cores.
        stores: files of known verdicts; every new verdict is appended to them. Several processes may share one.
        progress: called with the number of newly judged samples.

    Raises:
        InputError: workers < 1.
        SandboxError: the sandbox failed (this is not a verdict on a program).
    """
    threads = workers if workers is not None else cores()
    if threads < 1:
        raise InputError(f"workers must be ≥ 1, got {threads}")
    by_id = {one.task_id: one for one in problems}
    keys = [verdict_key(by_id[one.task_id], one.program, conditions) for one in samples]
    known: dict[str, Verdict] = {}
    for path in stores:
        known.update(stored_verdicts(path))
    old = known.keys() & set(keys)
    waiting: dict[str, list[Sample]] = {}
    for key, sample in zip(keys, samples, strict=True):
        if key not in old:
            waiting.setdefault(key, []).append(sample)
    if progress is not None and old:
        progress(sum(key in old for key in keys))
    with ExitStack() as files:
        writers = [files.enter_context(line_writer(path)) for path in stores]
        for key, verdict in _judge(by_id, waiting, sandbox, seconds, threads):
            known[key] = verdict
            line = checked_line(_stored(key, verdict))
            for writer in writers:
                writer.write([line])
            if progress is not None:
                progress(len(waiting[key]))
    first = {key: (some[0].task_id, some[0].index) for key, some in waiting.items()}
    return [
        Judgement(one.task_id, one.index, key, known[key], first.get(key) != (one.task_id, one.index))
        for key, one in zip(keys, samples, strict=True)
    ]


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _judge(
    problems: Mapping[str, Problem],
    waiting: Mapping[str, Sequence[Sample]],
    sandbox: StoppableSandbox,
    seconds: float,
    threads: int,
) -> Iterator[tuple[str, Verdict]]:
    from donod_fast.evaluation.judging import judge

    def verdict(sample: Sample) -> Verdict:
        return judge(problems[sample.task_id].check, sample.program, sandbox, seconds=seconds)

    # At most twice as many jobs as threads are queued: an interrupt then has little to cancel.
    queue = iter(waiting.items())
    running: dict[Future[Verdict], str] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="judge") as pool:
        try:
            _hand_in(pool, queue, running, 2 * threads, verdict)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                # Raise the failure last, so that verdicts that arrived with it are kept.
                for future in sorted(done, key=lambda one: one.exception() is not None):
                    yield running.pop(future), future.result()
                _hand_in(pool, queue, running, 2 * threads, verdict)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            sandbox.stop()  # otherwise the threads would wait until their programs time out
            raise


def _hand_in(
    pool: ThreadPoolExecutor,
    queue: Iterator[tuple[str, Sequence[Sample]]],
    running: dict[Future[Verdict], str],
    most: int,
    verdict: Callable[[Sample], Verdict],
) -> None:
    for key, some in islice(queue, most - len(running)):
        running[pool.submit(verdict, some[0])] = key


def _stored(key: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "key": key, "status": verdict.status, "detail": verdict.detail, "base": verdict.base, "plus": verdict.plus,
        "seconds": round(verdict.seconds, 4),
    }  # fmt: skip
