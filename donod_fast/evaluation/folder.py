"""The folder of an evaluation of programs: a :class:`ResultFolder` with ``samples.jsonl`` and ``verdicts.jsonl``.

A finished evaluation also has ``problems.jsonl``, the prompts for the browser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from donod_fast.evaluation.judging import Verdict
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.result_folder import RESULT, SETTINGS, ResultFolder
from donod_fast.evaluation.samples import Sample, sample_line
from donod_fast.evaluation.stored import sample_of, verdict_of
from donod_fast.evaluation.verdicts import Judgement
from donod_fast.system.checked_json import DamagedError, checked_line

SAMPLES, VERDICTS, PROBLEMS = "samples.jsonl", "verdicts.jsonl", "problems.jsonl"


class EvalFolder(ResultFolder):
    """A folder with a complete or partial evaluation of programs."""

    appended: ClassVar[tuple[str, ...]] = (SAMPLES, VERDICTS)
    written: ClassVar[tuple[str, ...]] = (PROBLEMS,)
    remedies: ClassVar[Mapping[str, str]] = {
        SAMPLES: "remove this line and evaluate again, which makes this sample again",
        VERDICTS: "remove this line and evaluate again, which judges this sample again",
        PROBLEMS: "evaluate again, which writes the file again",
    }

    def samples(self) -> list[Sample]:
        """The stored samples, in no particular order; each task and number once. Raises StoreError."""
        found: dict[tuple[str, int], Sample] = {}
        for sample in self.lines(SAMPLES, sample_of):
            found.setdefault((sample.task_id, sample.index), sample)
        return list(found.values())

    def verdicts(self) -> list[tuple[tuple[str, int] | None, Verdict]]:
        """The stored verdicts, each with task and number; None in an unfinished evaluation. Raises StoreError."""
        return self.lines(VERDICTS, _placed_verdict)

    def prompts(self) -> dict[str, str]:
        """The prompts by task; empty in an unfinished evaluation. Raises StoreError."""
        return dict(self.lines(PROBLEMS, _prompt_of))

    def finish(
        self,
        problems: Sequence[Problem],
        samples: Sequence[Sample],
        judgements: Sequence[Judgement],
        result: Mapping[str, Any],
    ) -> None:
        """Write samples and verdicts in the order of the tasks, the prompts for the browser, and the result last."""
        prompts = ({"task_id": one.task_id, "prompt": one.prompt or one.text} for one in problems)
        files = {
            SAMPLES: b"".join(map(sample_line, samples)),
            VERDICTS: b"".join(checked_line(one.as_dict()) for one in judgements),
            PROBLEMS: b"".join(map(checked_line, prompts)),
        }
        self.write_finished(files, result)


def _placed_verdict(line: Mapping[str, Any]) -> tuple[tuple[str, int] | None, Verdict]:
    """A verdict with its task and number. Raises DamagedError."""
    _, verdict = verdict_of(line)
    place = line.get("task_id"), line.get("sample")
    if place == (None, None):
        return None, verdict
    if not isinstance(place[0], str) or type(place[1]) is not int:
        raise DamagedError(f"task_id, sample: {place} is no sample")
    return (place[0], place[1]), verdict


def _prompt_of(line: Mapping[str, Any]) -> tuple[str, str]:
    """A task and its prompt. Raises DamagedError."""
    for name in ("task_id", "prompt"):
        if not isinstance(line.get(name), str):
            raise DamagedError(f"{name}: it is no text")
    return line["task_id"], line["prompt"]


def in_order(problems: Sequence[Problem], samples: Sequence[Sample]) -> list[Sample]:
    """Samples sorted by task order, then by number."""
    place = {one.task_id: at for at, one in enumerate(problems)}
    return sorted(samples, key=lambda one: (place[one.task_id], one.index))


__all__ = ["PROBLEMS", "RESULT", "SAMPLES", "SETTINGS", "VERDICTS", "EvalFolder", "in_order"]
