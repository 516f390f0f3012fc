"""Read the problems of a benchmark from a local file or the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import CorpusError, InputError
from donod_fast.evaluation.benchmarks import HUMAN_EVAL, MBPP_SPLITS, Benchmark, find_benchmark
from donod_fast.evaluation.judging import evalplus_check, human_eval_check, mbpp_check
from donod_fast.evaluation.records import Line, read_records, record_digest
from donod_fast.system.wording import shortened

if TYPE_CHECKING:
    from donod_fast.evaluation.judging import Check

_SPLITS = (*MBPP_SPLITS, "all")


@dataclass(frozen=True, slots=True)
class Problem:
    """One task of a benchmark.

    Attributes:
        task_id: as in the file; MBPP's numbers become ``Mbpp/2``, as in EvalPlus.
        family: the form of its record: ``"human-eval"`` or ``"mbpp"``.
        prompt: the code that a completion continues (HumanEval); "" for MBPP.
        text: the task in words (MBPP); "" for HumanEval.
        tests: the asserts that a prompt shows (MBPP); empty for HumanEval.
        entry_point: the function to write.
        canonical: the reference solution, a complete program.
        check: how a program is judged.
        digest: SHA-256 of everything except the program that the verdict depends on, in hex.
    """

    task_id: str
    family: str
    prompt: str
    text: str
    tests: tuple[str, ...]
    entry_point: str
    canonical: str
    check: Check = field(repr=False)
    digest: str


def load_problems(
    benchmark: str, path: str | Path | None = None, limit: int | None = None, *, split: str = "all"
) -> list[Problem]:
    """The problems of a benchmark, in the order of their file.

    Args:
        benchmark: ``humaneval``, ``humaneval+``, ``mbpp``, ``mbpp+`` or ``mbpp-sanitized``.
        path: a local file: HumanEval.jsonl, mbpp.jsonl, sanitized-mbpp.json or an EvalPlus release, each
            also with ``.gz``, or any file in one of these forms. None: the Hugging Face hub.
        limit: number of problems to keep, from the start.
        split: split of MBPP: ``all`` (974 tasks, 427 sanitized), ``test`` (tasks 11–510), ``prompt``, ``validation``
            or ``train``.

    Raises:
        InputError: unknown benchmark or split, or the benchmark is not on the hub.
        CorpusError: the file (or the hub) cannot be read, or a record lacks a required field.
    """
    kind = find_benchmark(benchmark)
    if split not in _SPLITS:
        raise InputError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}")
    if split != "all" and not kind.split:
        raise InputError(f"split={split!r} is for mbpp and mbpp-sanitized; {benchmark} has no splits")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be ≥ 1, got {limit}")
    lines = read_records(Path(path)) if path is not None else _from_hub(kind)
    problems = in_split([_problem(kind, line) for line in lines], split)
    _refuse_twins(problems, lines)
    if not problems:
        raise CorpusError(f"{path or kind.hub}: it has no task of the {split} split; use split 'all'")
    return problems[:limit]


def in_split(problems: Iterable[Problem], split: str) -> list[Problem]:
    """The problems of a split of MBPP; all of them for ``"all"``."""
    if split == "all":
        return list(problems)
    numbers = MBPP_SPLITS[split]
    return [one for one in problems if task_number(one.task_id) in numbers]


def task_number(task_id: str) -> int | None:
    """The number at the end of a task's id; None if there is none."""
    found = re.search(r"(\d+)$", task_id)
    return int(found[1]) if found else None


def known_id(task_id: Any, family: str) -> str:
    """A task's id in the form of :class:`Problem`: unifies MBPP's numbers and the spellings of other harnesses."""
    text = str(task_id)
    if family == HUMAN_EVAL:
        return text
    number = re.fullmatch(r"(?:mbpp/)?(\d+)", text, re.IGNORECASE)
    return f"Mbpp/{int(number[1])}" if number else text


def _problem(kind: Benchmark, line: Line) -> Problem:
    if kind.family == HUMAN_EVAL:
        return _human_eval(kind, line)
    return _mbpp_plus(kind, line) if kind.plus else _mbpp(kind, line)


def _human_eval(kind: Benchmark, line: Line) -> Problem:
    get = _Fields(kind, line)
    prompt, entry_point = get.text("prompt"), get.text("entry_point")
    canonical = prompt + get.text("canonical_solution")
    task_id = known_id(get.identifier(), kind.family)
    if kind.plus:
        check = _plus_check(get, line)
    else:
        get.text("test")
        check = _check(human_eval_check, line)
    return Problem(task_id, kind.family, prompt, "", (), entry_point, canonical, check, _digest(kind, line))


def _mbpp(kind: Benchmark, line: Line) -> Problem:
    get = _Fields(kind, line)
    task_id = known_id(get.identifier(), kind.family)
    text = get.text("text" if "text" in line.data else "prompt")
    # The file has Windows line ends in its code only.
    canonical = get.text("code").replace("\r\n", "\n")
    tests = tuple(get.texts("test_list"))
    if not tests:
        raise CorpusError(f"{line.place}: test_list is empty; a task without tests cannot be judged")
    check = _check(mbpp_check, line)
    return Problem(task_id, kind.family, "", text, tests, check.entry_point, canonical, check, _digest(kind, line))


def _mbpp_plus(kind: Benchmark, line: Line) -> Problem:
    get = _Fields(kind, line)
    task_id, entry_point = known_id(get.identifier(), kind.family), get.text("entry_point")
    prompt, canonical = get.text("prompt"), get.text("canonical_solution")
    # The prompt is a docstring: the task in words, then one assert.
    inside = prompt.strip().removeprefix('"""').removesuffix('"""').strip()
    words, _, shown = inside.partition("\nassert ")
    tests = tuple(one for one in get.text("assertion", "").strip().splitlines() if one.strip())
    if not tests:
        tests = ("assert " + shown,) if shown else ()
    check = _plus_check(get, line)
    return Problem(task_id, kind.family, "", words, tests, entry_point, canonical, check, _digest(kind, line))


def _plus_check(get: _Fields, line: Line) -> Check:
    for name in ("base_input", "plus_input"):
        get.inputs(name)
    get.number("atol")
    return _check(evalplus_check, line)


def _check(make: Callable[[Mapping[str, Any]], Check], line: Line) -> Check:
    try:
        return make(line.data)
    except (SyntaxError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CorpusError(f"{line.place}: its tests cannot be parsed ({reason}); fix the record") from error


def _digest(kind: Benchmark, line: Line) -> str:
    return record_digest({"family": kind.family, "plus": kind.plus, "record": line.digest})


class _Fields:
    """Typed access to the fields of a record."""

    def __init__(self, kind: Benchmark, line: Line) -> None:
        self._kind, self._line = kind, line

    def identifier(self) -> str | int:
        value: str | int = self.get("task_id", "a text or a number", lambda v: type(v) in (str, int))
        return value

    def text(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self._line.data:
            return default
        value: str = self.get(name, "a text", lambda v: isinstance(v, str))
        return value

    def texts(self, name: str) -> list[str]:
        def is_texts(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(one, str) for one in value)

        value: list[str] = self.get(name, "a list of texts", is_texts)
        return value

    def inputs(self, name: str) -> None:
        self.get(name, "a list", lambda v: isinstance(v, list) or v == {})  # an empty one is {} in some releases

    def number(self, name: str) -> None:
        self.get(name, "a number", lambda v: isinstance(v, int | float))

    def get(self, name: str, what: str, fits: Callable[[Any], bool]) -> Any:
        if name not in self._line.data:
            raise CorpusError(
                f"{self._line.place}: {name!r} is missing; is it a file of {self._kind.name} ({self._kind.source})?"
            )
        value = self._line.data[name]
        if not fits(value):
            raise CorpusError(f"{self._line.place}: {name!r} is a {type(value).__name__}, but must be {what}")
        return value


def _refuse_twins(problems: Sequence[Problem], lines: Sequence[Line]) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.task_id in seen:
            file = lines[0].place.rsplit(",", 1)[0]
            raise CorpusError(f"{file}: task {problem.task_id} occurs twice; remove one of the two")
        seen.add(problem.task_id)


def _from_hub(kind: Benchmark) -> list[Line]:
    if kind.hub is None:
        raise InputError(f"{kind.name} is read from a file: --problems FILE, which is {kind.source}")
    name, configuration = kind.hub
    try:
        from datasets import load_dataset

        splits = load_dataset(name, configuration)
    except Exception as error:  # the hub's client can raise many types
        reason = shortened(error, 200)
        raise CorpusError(
            f"{name} cannot be loaded from the Hugging Face hub ({reason}); give the file: --problems FILE, "
            f"which is {kind.source}"
        ) from error
    records = [dict(record) for split in splits.values() for record in split]
    if kind.family != HUMAN_EVAL:
        records.sort(key=lambda record: int(record["task_id"]))
    return [Line(f"{name}, record {at}", record, record_digest(record)) for at, record in enumerate(records)]


__all__ = ["Problem", "in_split", "known_id", "load_problems", "task_number"]
