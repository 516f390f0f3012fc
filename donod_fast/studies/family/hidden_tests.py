"""Hidden tests of a task: inputs for which the right program differs from programs that are nearly right.

A mutant of a program has one part replaced by another of the same types, a constant replaced by a neighbouring one, a
step left out, or two steps exchanged. Inputs are chosen greedily: each one detects most of the remaining mutants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from donod_fast.studies.family.operations import CONDITIONS, LIST, NUMBER, OPERATIONS
from donod_fast.studies.family.programs import Program, Step, is_sound

POOL = 60
FEWEST, MOST = 5, 12
LONGEST_OUTPUT = 90
_WORDS = ("Tea", "stone", "Also", "oasis", "EAST", "notes", "a", "Is", "sit", "Ohio", "tiger", "set", "Pie", "toast")


@cache
def pool(kind: str) -> tuple[Any, ...]:
    """Candidate inputs of a type, the same for every task."""
    rng = Random(f"inputs of {kind}")
    if kind == NUMBER:
        return tuple(range(-12, 26)) + tuple(rng.sample(range(26, 400), POOL - 38))
    if kind == LIST:
        lists = [[], [3], [-4], [7, 7, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9], [-3, 6, -9, 0, 5, 5]]
        lists += [[rng.randint(-12, 14) for _ in range(rng.randint(2, 9))] for _ in range(POOL - len(lists))]
        return tuple(lists)
    texts = ["", "a", "Teas", "a Stone in toast", "oasis  east"]
    texts += [" ".join(rng.choices(_WORDS, k=rng.randint(1, 4))) for _ in range(POOL - len(texts))]
    return tuple(texts)


def mutants(program: Program) -> Iterator[Program]:
    """All mutants of a program; some may be equivalent to it."""
    for place, step in enumerate(program.steps):
        for other in _neighbours(step):
            yield replace(program, steps=(*program.steps[:place], other, *program.steps[place + 1 :]))
    if program.condition:
        yield from _other_conditions(program)
        yield replace(program, steps=program.steps[::-1])
        return
    for place in range(len(program.steps)):
        yield replace(program, steps=program.steps[:place] + program.steps[place + 1 :])
    for place in range(len(program.steps) - 1):
        one, other = program.steps[place : place + 2]
        yield replace(program, steps=(*program.steps[:place], other, one, *program.steps[place + 2 :]))


def outputs(program: Program, values: tuple[Any, ...]) -> list[str]:
    """The program's outputs as text, so that 1, True and 1.0 differ."""
    if not program.condition and not is_sound(program.steps):
        return [""] * len(values)
    found = []
    for value in values:
        try:
            found.append(repr(program(value)))
        except Exception as error:
            found.append(type(error).__name__)
    return found


def is_worthwhile(program: Program) -> bool:
    """Whether the program is suitable as a task.

    It is not if a step or a branch changes no output, if nearly all outputs are equal, or if too few outputs are short
    enough for a test.
    """
    values = pool(program.takes)
    right = outputs(program, values)
    short = {text for text in right if len(text) <= LONGEST_OUTPUT}
    if sum(text in short for text in right) < POOL // 2:
        return False
    if len(short) < (2 if program.steps[-1].operation.gives == NUMBER else 5):
        return False
    return all(outputs(simpler, values) != right for simpler in _simpler(program))


def returns_its_argument(program: Program) -> bool:
    """Whether the program returns every input unchanged."""
    values = pool(program.takes)
    return outputs(program, values) == [repr(value) for value in values]


def choose_inputs(program: Program) -> list[Any]:
    """Inputs for the task's asserts, between ``FEWEST`` and ``MOST``."""
    values = pool(program.takes)
    right = outputs(program, values)
    usable = [at for at, text in enumerate(right) if len(text) <= LONGEST_OUTPUT]
    slips = [outputs(mutant, values) for mutant in mutants(program)]
    wrong = [found for found in (*slips, [repr(value) for value in values]) if found != right]
    alive, chosen = wrong, list[int]()
    while len(chosen) < MOST:
        left = [at for at in usable if at not in chosen]
        best = max(left, key=lambda at: sum(found[at] != right[at] for found in alive))
        if all(found[best] == right[best] for found in alive):
            if len(chosen) >= FEWEST:
                break
            alive = wrong  # every mutant is detected once: detect as many as possible again
            best = max(left, key=lambda at: sum(found[at] != right[at] for found in alive))
        chosen.append(best)
        alive = [found for found in alive if found[best] == right[best]]
    return [values[at] for at in sorted(chosen)]


def check_of(program: Program, inputs: list[Any]) -> str:
    """The test's text in HumanEval's form: a function ``check(candidate)`` of asserts."""
    lines = [f"    assert candidate({value!r}) == {program(value)!r}\n" for value in inputs]
    return "def check(candidate):\n" + "".join(lines)


def _neighbours(step: Step) -> Iterator[Step]:
    """The step with another constant, and other operations between the same types (with one constant each)."""
    operation = step.operation
    if operation.constants:
        at = operation.constants.index(step.constant)
        yield from (Step(operation, k) for k in operation.constants[max(0, at - 1) : at + 2] if k != step.constant)
    for other in OPERATIONS:
        if other is not operation and (other.takes, other.gives) == (operation.takes, operation.gives):
            constant = step.constant if step.constant in other.constants else (other.constants or ("",))[0]
            yield Step(other, constant)


def _other_conditions(program: Program) -> Iterator[Program]:
    assert program.condition
    constants = program.condition.constants
    if constants:
        at = constants.index(program.constant)
        for constant in constants[max(0, at - 1) : at + 2]:
            if constant != program.constant:
                yield replace(program, constant=constant)
    for other in CONDITIONS:
        if other is not program.condition and other.takes == program.takes:
            constant = program.constant if program.constant in other.constants else (other.constants or ("",))[0]
            yield replace(program, condition=other, constant=constant)


def _simpler(program: Program) -> Iterator[Program]:
    """The program without one of its parts."""
    if program.condition:
        yield from (Program((step,)) for step in program.steps)
    elif len(program.steps) > 1:
        for place in range(len(program.steps)):
            yield replace(program, steps=program.steps[:place] + program.steps[place + 1 :])
