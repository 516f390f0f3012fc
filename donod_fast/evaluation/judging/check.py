"""Input and result of one judgement: two plain values that all modules here use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["human-eval", "mbpp", "evalplus"]

PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Check:
    """How to judge the program of one task. This is trusted text from the benchmark; none of it reaches the program.

    Attributes:
        kind: ``"human-eval"`` (``test`` defines ``check(candidate)``), ``"mbpp"`` (``test_list`` of statements over the
            program's names) or ``"evalplus"`` (calls compared with the reference's).
        task_id: the task's id in the benchmark.
        entry_point: name of the function that the program must define.
        prompt: text before the program; ``test`` uses the helpers that it defines, even if the program
            redefines them.
        test: source that defines ``check(candidate)`` (human-eval).
        setup: statements before ``test_list`` (mbpp: its imports and set-up code).
        test_list: statements, each of which must not raise (mbpp).
        reference: the canonical solution, a whole program (evalplus).
        base_inputs: argument lists of the original benchmark's tests (evalplus).
        plus_inputs: argument lists that EvalPlus added.
        atol: absolute tolerance of float outputs (evalplus).
        rules: the benchmark whose special cases apply, ``"humaneval"`` or ``"mbpp"`` (evalplus).
    """

    kind: Kind
    task_id: str
    entry_point: str
    prompt: str = ""
    test: str = ""
    setup: str = ""
    test_list: tuple[str, ...] = ()
    reference: str = ""
    base_inputs: tuple[Any, ...] = ()
    plus_inputs: tuple[Any, ...] = ()
    atol: float = 0.0
    rules: Literal["", "humaneval", "mbpp"] = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one program.

    Attributes:
        status: ``"passed"``; ``"failed"`` (a wrong answer), ``"error"`` (an exception), ``"syntax"``,
            ``"no_entry_point"``, ``"timeout"``, ``"memory"``, ``"output"`` (more text than allowed), ``"exited"`` (its
            process ended before every question was answered) or ``"protocol"`` (it sent an invalid answer).
        detail: one line that names the failing assertion, input or exception; empty if it passed.
        base: whether it passed the benchmark's own tests.
        plus: whether it passed EvalPlus's added inputs too; None if there are none.
        seconds: wall time from start to verdict.
    """

    status: str
    detail: str
    base: bool
    plus: bool | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every test was passed, EvalPlus's included."""
        return self.status == PASSED
