"""A program of the family: its steps, its Python, its docstring, and its meaning as a callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

from donod_fast.studies.family.operations import (
    BY_NAME,
    CONDITION_BY_NAME,
    LIST,
    NUMBER,
    TEXT,
    Condition,
    Operation,
)

Signature = tuple[str, ...]
"""Names of a program's parts without constants; see :attr:`Program.signature`."""

ARGUMENTS = {
    NUMBER: ("n", "x", "number", "value"),
    LIST: ("numbers", "items", "values", "data"),
    TEXT: ("text", "word", "s", "line"),
}
NAMES = (
    "solve", "process", "compute", "transform", "convert", "handle", "change", "prepare",
    "apply", "work", "run", "make", "build", "answer", "task", "helper", "update", "adjust",
)  # fmt: skip
LEADS = ("Given a {}, ", "For a {}: ")
JOINTS = ("{}, then {}.", "{} and then {}.", "first {}; then {}.")
JOINTS_OF_THREE = ("{}, then {}, then {}.", "first {}; then {} and {}.")
BRANCHES = ("if {c}, {a}; otherwise {b}.", "{a} if {c}, else {b}.")

_BUILTINS: dict[str, Any] = {
    "abs": abs, "enumerate": enumerate, "int": int, "len": len, "list": list, "max": max, "min": min,
    "range": range, "set": set, "sorted": sorted, "str": str, "sum": sum,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its constant (empty if it has none)."""

    operation: Operation
    constant: str = ""

    def expression(self, variable: str) -> str:
        """Its Python code for a variable."""
        return self.operation.expression.format(v=variable, k=self.constant)

    def said(self, rng: Random) -> str:
        """One of its phrases."""
        return rng.choice(self.operation.phrases).format(k=self.constant)


@dataclass(frozen=True, slots=True)
class Program:
    """A chain of one to three steps, or a condition that chooses between two steps.

    Attributes:
        steps: the steps in order; with a condition, the step if it holds and the step otherwise.
        condition: the condition, None for a chain of steps.
        constant: constant of the condition.
    """

    steps: tuple[Step, ...]
    condition: Condition | None = None
    constant: str = ""

    @property
    def takes(self) -> str:
        """Type of its argument."""
        return self.steps[0].operation.takes

    @property
    def kind(self) -> str:
        """``chain1``, ``chain2``, ``chain3`` or ``branch``."""
        return "branch" if self.condition else f"chain{len(self.steps)}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its parts in order."""
        front = ("if_" + self.condition.name,) if self.condition else ()
        return front + tuple(step.operation.name for step in self.steps)

    @property
    def signature(self) -> Signature:
        """Names of its parts, sorted: two programs that differ in order or constants only share it."""
        return tuple(sorted(self.names))

    def body(self, argument: str) -> str:
        """Its Python code as an indented function body that ends with a line feed."""
        if self.condition:
            test = self.condition.expression.format(v=argument, k=self.constant)
            one, other = (step.expression(argument) for step in self.steps)
            return f"    if {test}:\n        return {one}\n    return {other}\n"
        lines, variable = [], argument
        for step in self.steps[:-1]:
            lines.append(f"    result = {step.expression(variable)}\n")
            variable = "result"
        return "".join(lines) + f"    return {self.steps[-1].expression(variable)}\n"

    def said(self, rng: Random) -> str:
        """A sentence that requests it."""
        parts = [step.said(rng) for step in self.steps]
        if self.condition:
            condition = rng.choice(self.condition.phrases).format(k=self.constant)
            sentence = rng.choice(BRANCHES).format(c=condition, a=parts[0], b=parts[1])
        elif len(parts) == 1:
            sentence = parts[0] + "."
        else:
            sentence = rng.choice(JOINTS if len(parts) == 2 else JOINTS_OF_THREE).format(*parts)
        return rng.choice(LEADS).format(self.takes) + sentence

    def __call__(self, value: Any) -> Any:
        """Its output for a value."""
        if self.condition:
            holds = _compiled(self.condition.expression.format(v="v", k=self.constant))(value)
            return _compiled(self.steps[0 if holds else 1].expression("v"))(value)
        for step in self.steps:
            value = _compiled(step.expression("v"))(value)
        return value


@cache
def _compiled(expression: str) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = eval(f"lambda v: {expression}", {"__builtins__": _BUILTINS})
    return function


def is_sound(steps: tuple[Step, ...]) -> bool:
    """Whether the types fit and no step can run for very long (counting up to a huge number)."""
    fits = all(one.operation.gives == other.operation.takes for one, other in pairwise(steps))
    return fits and all(step.operation.name != "below" for step in steps[1:])


def step_of(name: str, rng: Random) -> Step:
    """The named operation with a drawn constant."""
    operation = BY_NAME[name]
    return Step(operation, rng.choice(operation.constants) if operation.constants else "")


def branch_of(name: str, one: Step, other: Step, rng: Random) -> Program:
    """The named condition with a drawn constant, and two steps to choose from."""
    condition = CONDITION_BY_NAME[name]
    return Program((one, other), condition, rng.choice(condition.constants) if condition.constants else "")
