"""The result of an evaluation: counts, pass@k with intervals, and the outcome of every task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.evaluation import passk
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.samples import Sample
from donod_fast.evaluation.verdicts import Judgement

KS = (1, 10, 100)
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The outcome of a task's samples.

    Attributes:
        task_id: the task.
        samples: their number; a task without samples counts as one failed sample.
        passed: number of samples that pass (on EvalPlus's data: base and plus inputs).
        base_passed: number of samples that pass the benchmark's own tests.
        statuses: number of samples by status.
    """

    task_id: str
    samples: int
    passed: int
    base_passed: int
    statuses: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The result of an evaluation.

    Attributes:
        passed: samples that pass; with one sample per task, the tasks solved.
        total: all samples, including missing ones.
        pass_at: pass@k by k, for those of 1, 10 and 100 for which every task has k samples.
        intervals: 95 % interval by k.
        interval_method: ``"wilson"`` (one sample per task), or the bootstrap over tasks; see
            :func:`donod_fast.evaluation.passk.interval`.
        base_passed: samples that pass the benchmark's own tests.
        base_pass_at: pass@k on them.
        base_intervals: 95 % interval by k.
        plus: True if EvalPlus's inputs were judged: ``passed`` then means base and plus.
        by_status: samples by status; ``missing`` are tasks without a sample.
        per_task: every task, in the problems' order.
        judged: programs that were run; the others were in a cache or equal to another program.
        seconds: time for generating and for judging in this run.
        settings: the settings of the evaluation.
    """

    passed: int
    total: int
    pass_at: dict[int, float]
    intervals: dict[int, tuple[float, float]]
    interval_method: str
    base_passed: int
    base_pass_at: dict[int, float]
    base_intervals: dict[int, tuple[float, float]]
    plus: bool
    by_status: dict[str, int]
    per_task: list[TaskResult] = field(repr=False)
    judged: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The content of ``result.json``. On EvalPlus's data it also has ``base_…`` and ``plus_…`` figures."""
        record: dict[str, Any] = {
            "passed": self.passed,
            "total": self.total,
            **_named("pass@", self.pass_at),
            "intervals": _named("pass@", self.intervals),
            "interval_method": self.interval_method,
        }
        if self.plus:
            record |= {
                "base_passed": self.base_passed,
                **_named("base_pass@", self.base_pass_at),
                "plus_passed": self.passed,
                **_named("plus_pass@", self.pass_at),
                "base_intervals": _named("pass@", self.base_intervals),
            }
        return {
            **record,
            "tasks": len(self.per_task),
            "by_status": self.by_status,
            "judged": self.judged,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "settings": self.settings,
            "per_task": {
                one.task_id: {
                    "samples": one.samples,
                    "passed": one.passed,
                    **({"base_passed": one.base_passed} if self.plus else {}),
                    "statuses": dict(one.statuses),
                }
                for one in self.per_task
            },
        }


def make_result(
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    judgements: Sequence[Judgement],
    *,
    seconds: Mapping[str, float],
    settings: Mapping[str, Any],
    ks: Sequence[int] = KS,
) -> EvalResult:
    """Count judgements, task by task."""
    by_task: dict[str, list[Judgement]] = {one.task_id: [] for one in problems}
    for judgement in judgements:
        by_task[judgement.task_id].append(judgement)
    # A task without samples counts as many failures as the other tasks have samples at least.
    fewest = min((len(some) for some in by_task.values() if some), default=1)
    tasks = [_task(task_id, some, fewest) for task_id, some in by_task.items()]
    counts = [(one.samples, one.passed) for one in tasks]
    base = [(one.samples, one.base_passed) for one in tasks]
    some_ks = [k for k in ks if k <= fewest]
    pass_at, intervals = _figures(counts, some_ks)
    base_pass_at, base_intervals = (pass_at, intervals) if base == counts else _figures(base, some_ks)
    by_status: Counter[str] = Counter()
    for task in tasks:
        by_status.update(task.statuses)
    return EvalResult(
        passed=sum(passed for _, passed in counts),
        total=sum(samples for samples, _ in counts),
        pass_at=pass_at,
        intervals=intervals,
        interval_method=passk.interval_method(counts),
        base_passed=sum(passed for _, passed in base),
        base_pass_at=base_pass_at,
        base_intervals=base_intervals,
        plus=any(one.check.kind == "evalplus" for one in problems),
        by_status=dict(sorted(by_status.items(), key=lambda item: (item[0] != "passed", -item[1], item[0]))),
        per_task=tasks,
        judged=sum(not one.cached for one in judgements),
        seconds=dict(seconds),
        settings=dict(settings),
    )


def _task(task_id: str, judgements: Sequence[Judgement], fewest: int) -> TaskResult:
    if not judgements:
        return TaskResult(task_id, fewest, 0, 0, {MISSING: fewest})
    statuses = Counter(one.verdict.status for one in judgements)
    base = sum(one.verdict.base for one in judgements)
    return TaskResult(task_id, len(judgements), sum(one.verdict.passed for one in judgements), base, statuses)


def _figures(
    counts: Sequence[tuple[int, int]], ks: Sequence[int]
) -> tuple[dict[int, float], dict[int, tuple[float, float]]]:
    return {k: passk.mean_pass_at_k(counts, k) for k in ks}, {k: passk.interval(counts, k) for k in ks}


def _named(prefix: str, values: Mapping[int, Any]) -> dict[str, Any]:
    return {f"{prefix}{k}": list(value) if isinstance(value, tuple) else value for k, value in values.items()}
