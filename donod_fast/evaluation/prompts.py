"""Prompts by style, the stops of a generation, and the program made from a generation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from donod_fast.errors import InputError
from donod_fast.evaluation.benchmarks import HUMAN_EVAL, find_benchmark

if TYPE_CHECKING:
    from donod_fast.evaluation.problems import Problem

STOPS: dict[str, tuple[str, ...]] = {
    "completion": ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\nassert", "```"),
    "chat": ("<|im_end|>",),  # as text, if it is not a special token of the tokenizer
    "3-shot": ("[DONE]",),
    "0-shot": ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```"),
}
"""The strings that end a generation, by style. ``completion`` begins with HumanEval's own list (Chen et al.,
arXiv 2107.03374, §2.3); ``0-shot`` is that of the bigcode harness."""

SHOTS = (2, 3, 4)
"""The tasks of MBPP's prompt split that the 3-shot prompt shows (Austin et al., arXiv 2108.07732, §3.1)."""

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a model.

    Attributes:
        text: the text to continue, or the user's message.
        chat: True if it is a message to be rendered by the chat template.
    """

    text: str
    chat: bool


def choose_style(benchmark: str, style: str | None) -> str:
    """The named style, or the benchmark's default (``completion``, ``3-shot``).

    Raises:
        InputError: the benchmark has no such style.
    """
    styles = find_benchmark(benchmark).styles
    if style is None:
        return styles[0]
    if style not in styles:
        raise InputError(f"{benchmark} has no style {style!r}; its styles are {', '.join(styles)}")
    return style


def find_shots(problems: Sequence[Problem]) -> list[Problem]:
    """The solved examples of the 3-shot prompt: tasks 2, 3 and 4 of the same file.

    Raises:
        InputError: the file lacks one of them.
    """
    by_id = {one.task_id: one for one in problems}
    missing = [number for number in SHOTS if f"Mbpp/{number}" not in by_id]
    if missing:
        numbers = ", ".join(map(str, missing))
        raise InputError(
            f"the 3-shot prompt shows MBPP's tasks 2, 3 and 4, and the problems file lacks {numbers}; "
            "use the whole file (the split is taken from it), or --style 0-shot"
        )
    return [by_id[f"Mbpp/{number}"] for number in SHOTS]


def make_prompt(problem: Problem, style: str, shots: Sequence[Problem] = ()) -> Prompt:
    """The prompt of a problem.

    - ``completion``: the function's head and docstring, as in the file.
    - ``chat``: a message that asks for the whole function in a fenced block.
    - ``3-shot``: three solved tasks and this one, between ``[BEGIN]`` and ``[DONE]`` (Austin et al., §3.1; as lm-eval).
    - ``0-shot``: a docstring with the task and its first test (as the bigcode harness).
    """
    if style == "completion":
        return Prompt(problem.prompt, chat=False)
    if style == "chat":
        return Prompt(
            "Complete the following Python function. Answer with the whole function, its imports included, "
            f"in one fenced block of Python code.\n\n```python\n{problem.prompt.strip()}\n```",
            chat=True,
        )
    if style == "3-shot":
        solved = [f"{_task(shot)}{shot.canonical.strip()}\n[DONE]\n\n" for shot in shots]
        return Prompt("".join(solved) + _task(problem), chat=False)
    if style == "0-shot":
        return Prompt(f'"""\n{problem.text.strip()}\n{problem.tests[0].strip()}\n"""\n', chat=False)
    raise InputError(f"style must be one of {', '.join(STOPS)}, got {style!r}")


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text before its first stop; the whole text if it contains none."""
    places = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(places)] if places else text


def make_program(problem: Problem, style: str, text: str) -> str:
    """Build the program from a generation (cut at its stop).

    A completion is appended to its prompt. In a chat answer, the fenced block that defines the entry point counts, with
    the imports and helpers of the prompt before it; a block that defines no such function is taken as the
    function's body. MBPP's generations are complete programs.
    """
    if style == "completion":
        return problem.prompt + text
    if style == "chat":
        return _from_chat(problem, text)
    return text


def completed(problem: Problem, completion: str) -> str:
    """The program of a ``completion`` in human-eval's sample format."""
    return problem.prompt + completion if problem.family == HUMAN_EVAL else completion


def code_block(text: str, entry_point: str) -> str:
    """The code of an answer: the fenced block that defines ``entry_point``, else the first, else the whole text."""
    blocks = [found[1] for found in _FENCE.finditer(text)]
    if not blocks:
        return text
    return next((block for block in blocks if _defines(block, entry_point)), blocks[0])


def _task(problem: Problem) -> str:
    tests = "\n".join(test.strip() for test in problem.tests)
    return (
        f"You are an expert Python programmer, and here is your task: {problem.text.strip()} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _from_chat(problem: Problem, text: str) -> str:
    code = code_block(text, problem.entry_point)
    if not _defines(code, problem.entry_point):
        return problem.prompt + code
    head = _definition(problem.entry_point).search(problem.prompt)
    before = problem.prompt[: head.start()] if head else ""
    return f"{before.rstrip()}\n\n\n{code}" if before.strip() else code


def _defines(code: str, name: str) -> bool:
    return _definition(name).search(code) is not None


def _definition(name: str) -> re.Pattern[str]:
    return re.compile(rf"^(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(name)}\b", re.MULTILINE)
