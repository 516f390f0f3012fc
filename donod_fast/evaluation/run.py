"""One evaluation: samples from a model, a file or the benchmark itself are judged and counted."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError
from donod_fast.evaluation.folder import SAMPLES, VERDICTS, EvalFolder, in_order
from donod_fast.evaluation.lines import line_writer
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.result import EvalResult, make_result
from donod_fast.evaluation.samples import Sample, check_samples, sample_line, samples_digest
from donod_fast.evaluation.verdicts import judge_samples

if TYPE_CHECKING:
    from donod_fast.evaluation.sandbox import Isolation, Limits

EVALPLUS_MEMORY = 4 << 30
"""Bytes that EvalPlus allows a program by default (its documentation of execution, "Memory Limits")."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress("generate" | "judge", advanced by, of how many in all)``."""

Source = Callable[[set[tuple[str, int]]], Iterable[Sample]]
"""Given the (task, number) pairs that exist already, yields the missing samples."""


@dataclass(frozen=True)
class JudgeSettings:
    """How programs are judged.

    Attributes:
        unsafe: run programs without a sandbox if none is available.
        workers: programs that run at once; None for the number of cores.
        seconds: processor time limit of one program; None for the judge's own limit for the kind of benchmark
            (:data:`donod_fast.evaluation.judging.relay.SECONDS`).
        limits: the sandbox's other limits; None for :func:`default_limits`.
        packages: let programs import the installed packages.
        cache: a file of verdicts that several evaluations share, also concurrently; None for none.

    Raises:
        InputError: ``seconds`` is not above 0.
    """

    unsafe: bool = False
    workers: int | None = None
    seconds: float | None = None
    limits: Limits | None = None
    packages: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds must be > 0, got {self.seconds}")


def evaluate_samples(
    problems: Sequence[Problem],
    samples: Iterable[Sample],
    out: str | Path | None = None,
    judging: JudgeSettings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EvalResult:
    """Judge samples and compute pass@k.

    Args:
        problems: the tasks.
        samples: programs for them; a task without any counts as failed, with the status ``missing``.
        out: a folder for samples, verdicts and ``result.json``; None writes none.
        judging: sandbox, limits and cache; None for the defaults.
        settings: recorded in the result; if ``out`` holds an evaluation with other settings, it is refused.
        overwrite: delete what ``out`` holds.
        progress: called after each step, see :data:`Progress`.

    Raises:
        InputError: there are no problems, or a limit is invalid.
        CorpusError: a sample belongs to an unknown task, or two have the same number.
        SandboxError: no sandbox is available, and ``unsafe`` is not set.
        SettingsMismatchError: ``out`` holds an evaluation with other settings.
    """
    given = list(samples)
    digest = samples_digest(given)
    return evaluate(
        problems,
        lambda done: (one for one in given if (one.task_id, one.index) not in done),
        len(given),
        None if out is None else Path(out),
        judging,
        settings=settings if settings is not None else {"samples_sha256": digest},
        overwrite=overwrite,
        progress=progress,
    )


def evaluate(
    problems: Sequence[Problem],
    source: Source,
    total: int,
    out: Path | None,
    judging: JudgeSettings | None = None,
    *,
    settings: Mapping[str, Any],
    recorded: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EvalResult:
    """Generate samples, judge them and compute pass@k; samples that ``out`` holds are not generated again.

    Args:
        problems: the tasks.
        source: generates the missing samples.
        total: how many samples there will be.
        out: the folder; None for none.
        judging: sandbox, limits and cache; None for the defaults.
        settings: what determines samples and verdicts; the limits are added.
        recorded: further facts to record; it may be a mapping that ``source`` fills.
        overwrite: delete what ``out`` holds.
        progress: called after each step, see :data:`Progress`.

    Raises:
        InputError, CorpusError, SandboxError, SettingsMismatchError: as :func:`evaluate_samples`.
    """
    from donod_fast.evaluation.judging.relay import SECONDS
    from donod_fast.evaluation.sandbox import Isolation, find_isolation
    from donod_fast.evaluation.stoppable import shared_sandbox
    from donod_fast.system.locking import locked

    if not problems:
        raise InputError("there are no problems to evaluate")
    judging = judging or JudgeSettings()
    limit = SECONDS[problems[0].check.kind] if judging.seconds is None else judging.seconds
    isolation = find_isolation(unsafe=judging.unsafe)  # before a model has worked for hours
    bounds = judging.limits if judging.limits is not None else default_limits(problems)
    isolated = isolation is not Isolation.NONE
    # The sandbox's own time limits do not affect a verdict.
    kept = {name: value for name, value in asdict(bounds).items() if name not in ("seconds", "cpu_seconds")}
    conditions = {**kept, "seconds": limit, "packages": judging.packages, "isolated": isolated}
    decisive = {**settings, "problems": problems_digest(problems), "judging": conditions}
    with ExitStack() as stack:
        folder = None
        stores = [] if judging.cache is None else [judging.cache]
        if out is not None:
            stack.enter_context(locked(out))
            folder = EvalFolder.open_or_create(out, decisive, overwrite=overwrite)
            folder.verdicts()  # refuses a damaged one; below, damaged lines of a cache are judged again
            stores.append(out / VERDICTS)
        start = time.perf_counter()
        samples = in_order(problems, _collect(problems, source, total, folder, progress))
        middle = time.perf_counter()
        judgements = judge_samples(
            problems,
            samples,
            shared_sandbox(isolation, bounds, packages=judging.packages),
            seconds=limit,
            conditions=conditions,
            workers=judging.workers,
            stores=stores,
            progress=None if progress is None else lambda some: progress("judge", some, len(samples)),
        )
        end = time.perf_counter()
        result = make_result(
            problems,
            samples,
            judgements,
            seconds={"generate": middle - start, "judge": end - middle},
            settings={**decisive, **_surroundings(isolation), **(recorded or {})},
        )
        if folder is not None:
            folder.finish(problems, samples, judgements, result.as_dict())
    return result


def default_limits(problems: Sequence[Problem]) -> Limits:
    """The sandbox's default limits; 4 GiB of memory for EvalPlus's data, since some of its answers are huge."""
    from donod_fast.evaluation.sandbox import Limits

    plus = any(one.check.kind == "evalplus" for one in problems)
    return Limits(memory=EVALPLUS_MEMORY) if plus else Limits()


def problems_digest(problems: Sequence[Problem]) -> str:
    """SHA-256 of the evaluated tasks, including their tests, in hex."""
    return hashlib.sha256(
        "".join(f"{one.task_id}\0{one.digest}\n" for one in problems).encode("utf-8", "surrogatepass")
    ).hexdigest()


def _collect(
    problems: Sequence[Problem],
    source: Source,
    total: int,
    folder: EvalFolder | None,
    progress: Progress | None,
) -> list[Sample]:
    samples = [] if folder is None else folder.samples()
    if progress is not None and samples:
        progress("generate", len(samples), total)
    check_samples(problems, samples)
    new = source({(one.task_id, one.index) for one in samples})
    with ExitStack() as stack:
        writer = None if folder is None else stack.enter_context(line_writer(folder.path / SAMPLES))
        for sample in new:
            if writer is not None:
                writer.write([sample_line(sample)])
            samples.append(sample)
            if progress is not None:
                progress("generate", 1, total)
    check_samples(problems, samples)
    return samples


def _surroundings(isolation: Isolation) -> dict[str, Any]:
    from donod_fast._version import __version__

    versions = {"python": platform.python_version(), "donod-fast": __version__}
    return {"isolation": str(isolation), "versions": versions}
