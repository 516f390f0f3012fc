"""Samples: programs written by a model, and the files that store them."""

from __future__ import annotations

import hashlib
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
from donod_fast.system.checked_json import checked_line
from donod_fast.system.wording import plural

ENDS = ("stop", "end", "length", "prompt_too_long", "given")
"""How the text of a sample can have ended; see :class:`Sample`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One program for one task.

    Attributes:
        task_id: the task, as in :class:`Problem`.
        index: the sample's number within its task, from 0.
        program: the complete program to judge.
        text: the model's output, cut at its stop; None if the program came from a file.
        tokens: number of generated tokens before that cut; 0 if the program came from a file.
        ended: ``"stop"`` (at a stop), ``"end"`` (by an end token), ``"length"``, ``"prompt_too_long"`` (nothing
            was generated), or ``"given"`` (from a file).
    """

    task_id: str
    index: int
    program: str
    text: str | None = None
    tokens: int = 0
    ended: str = "given"

    def as_dict(self) -> dict[str, Any]:
        """A line of ``samples.jsonl``, which human-eval (``completion``) and EvalPlus (``solution``) can also read."""
        line: dict[str, Any] = {"task_id": self.task_id, "sample": self.index, "solution": self.program}
        if self.text is not None:
            line["completion"] = self.text
        return {**line, "tokens": self.tokens, "ended": self.ended}


@dataclass(frozen=True, slots=True)
class GivenSamples:
    """The samples of a file.

    Attributes:
        samples: samples of the evaluated tasks, in task order, then in file order.
        others: number of samples of other tasks of the same benchmark (another split, beyond the limit).
    """

    samples: list[Sample]
    others: int


def read_samples(path: Path, problems: Sequence[Problem], known: Iterable[Problem] | None = None) -> GivenSamples:
    """Read samples in human-eval's format (``task_id``, ``completion``) or EvalPlus's (``task_id``, ``solution``).

    A ``solution`` is a complete program; a ``completion`` is appended to its prompt (MBPP has none). If a line has
    both, the solution counts. Several lines with one task are its samples, in order.

    Args:
        path: JSON Lines or a JSON list, also gzipped.
        problems: the tasks to evaluate.
        known: all tasks of the benchmark, which include ``problems``; None: ``problems`` are all tasks.

    Raises:
        CorpusError: the file cannot be read, a line has no program, or its task is not in the benchmark.
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
                f"{line.place}: this benchmark has no task {task_id!r} (it has {some}, …); are the samples "
                "for another one? Give its benchmark and problems file, or remove the line"
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
    """The reference solutions as samples; a correct judge passes all of them."""
    return [Sample(one.task_id, 0, one.canonical) for one in problems]


def check_samples(problems: Sequence[Problem], samples: Sequence[Sample]) -> None:
    """Refuse samples of unknown tasks, and two samples with the same task and number.

    Raises:
        CorpusError: names the first one.
    """
    known = {one.task_id for one in problems}
    for (task_id, index), times in Counter((one.task_id, one.index) for one in samples).items():
        if task_id not in known:
            raise CorpusError(f"a sample has the task {task_id!r}, which is not among the {len(known)} problems")
        if times > 1:
            raise CorpusError(f"task {task_id} has {plural(times, 'sample')} numbered {index}; number them from 0")


def sample_line(sample: Sample) -> bytes:
    """One line of ``samples.jsonl``, with a checksum."""
    return checked_line(sample.as_dict())


def samples_digest(samples: Iterable[Sample]) -> str:
    """SHA-256 of samples in their order, in hex."""
    lines = ((json.dumps(sample.as_dict()) + "\n").encode() for sample in samples)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _field(line: Line, name: str, *kinds: type) -> Any:
    value = line.data.get(name)
    if type(value) not in kinds:
        raise CorpusError(
            f"{line.place}: a sample needs 'task_id' and 'completion' (human-eval) or 'solution' (EvalPlus); "
            f"{name!r} is {'missing' if name not in line.data else 'a ' + type(value).__name__}"
        )
    return value
