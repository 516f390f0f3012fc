"""Draw tasks: the set of programs, those that are held out, and the frequency of each operation.

A program of two or more steps is held out if its *signature* falls into the held-out fifth of a fixed hash. The
signature is the sorted names of its operations and its condition, without constants, order, function names and wording.
No program with such a signature occurs in the training rows of any seed or in the training text of the base models. So
a held-out task requires a combination that the model has never seen. Everything else is shared: every operation,
condition, constant and phrase occurs in training alone (programs of one step are never held out) and in other
combinations, and so do function and argument names. Chains of three steps may contain two steps that were seen
together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import NamedTuple

from donod_fast.studies.family.hidden_tests import check_of, choose_inputs, is_worthwhile, returns_its_argument
from donod_fast.studies.family.operations import CONDITIONS, OPERATIONS
from donod_fast.studies.family.programs import (
    ARGUMENTS,
    NAMES,
    Program,
    Signature,
    branch_of,
    is_sound,
    step_of,
)

HELD_OUT_SHARE = 0.2
TRAINING_KINDS = {"chain1": 0.25, "chain2": 0.5, "chain3": 0.05, "branch": 0.2}
HELD_OUT_KINDS = {"chain2": 0.65, "chain3": 0.1, "branch": 0.25}
"""Frequency of each kind of program, in training rows and in held-out tasks."""


@dataclass(frozen=True)
class Task:
    """A programming task in HumanEval's form.

    Attributes:
        task_id: unique within its set.
        prompt: ``def`` line and docstring, ending with a line feed.
        solution: the right body, indented, ending with a line feed: ``prompt + solution`` is a program.
        entry_point: the function's name.
        test: defines ``check(candidate)``.
        kind: ``chain1``, ``chain2``, ``chain3`` or ``branch``.
        program: what the function does.
    """

    task_id: str
    prompt: str
    solution: str
    entry_point: str
    test: str
    kind: str
    program: Program

    @property
    def signature(self) -> Signature:
        """The signature, which training and held-out tasks must not share."""
        return self.program.signature


def is_held_out(signature: Signature) -> bool:
    """Whether programs of this signature are excluded from all training, for every seed."""
    if len(signature) == 1:
        return False
    digest = hashlib.sha256(" ".join(signature).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < HELD_OUT_SHARE


def generate_tasks(count: int, seed: int, exclude: Collection[Program] = ()) -> list[Task]:
    """Draw ``count`` different held-out tasks with hidden tests, with a uniform distribution of operations.

    Args:
        count: number of tasks.
        seed: determines the set; a longer set begins with the shorter one.
        exclude: programs that must not be drawn.
    """
    rng = Random(f"held-out tasks {seed}")
    seen = set(exclude)
    tasks: list[Task] = []
    for program in draw_programs(rng, HELD_OUT_KINDS, held_out=True):
        if len(tasks) >= count:
            break
        if program in seen or returns_its_argument(program):
            continue
        seen.add(program)
        tasks.append(task_of(program, f"Family/{len(tasks)}", rng))
    return tasks


def task_of(program: Program, task_id: str, rng: Random) -> Task:
    """The program as a task with a random name and wording."""
    written = write_program(program, rng)
    test = check_of(program, choose_inputs(program))
    return Task(task_id, written.prompt, written.body, written.name, test, program.kind, program)


class Written(NamedTuple):
    """A program in words and Python: ``prompt + body`` is a function ``name`` of ``argument``."""

    prompt: str
    body: str
    name: str
    argument: str


def write_program(program: Program, rng: Random) -> Written:
    """The program with a random name, argument and wording."""
    name, argument = rng.choice(NAMES), rng.choice(ARGUMENTS[program.takes])
    prompt = f'def {name}({argument}):\n    """{program.said(rng)}"""\n'
    return Written(prompt, program.body(argument), name, argument)


def draw_programs(
    rng: Random, kinds: Mapping[str, float], *, held_out: bool, weights: Mapping[str, float] | None = None
) -> Iterator[Program]:
    """Endless programs, either all held out or all not held out.

    Args:
        rng: source of randomness.
        kinds: share of each kind.
        held_out: side of the split.
        weights: frequency of each operation; uniform by default.
    """
    while True:
        (kind,) = rng.choices(list(kinds), list(kinds.values()))
        program = None
        while program is None:
            program = _draw(kind, rng, weights or {})
            if program and (is_held_out(program.signature) != held_out or not _worthwhile(program)):
                program = None
        yield program


def _draw(kind: str, rng: Random, weights: Mapping[str, float]) -> Program | None:
    if kind == "branch":
        condition = rng.choice(CONDITIONS)
        one, other = (step_of(_choice(_names_from(condition.takes), rng, weights), rng) for _ in range(2))
        if one == other or one.operation.gives != other.operation.gives:
            return None
        return branch_of(condition.name, one, other, rng)
    steps = [step_of(_choice([operation.name for operation in OPERATIONS], rng, weights), rng)]
    while len(steps) < int(kind[-1]):
        steps.append(step_of(_choice(_names_from(steps[-1].operation.gives), rng, weights), rng))
    chain = tuple(steps)
    names = [step.operation.name for step in chain]
    return Program(chain) if is_sound(chain) and len(set(names)) == len(names) else None


_worthwhile = cache(is_worthwhile)


@cache
def _names_from(takes: str) -> list[str]:
    return [operation.name for operation in OPERATIONS if operation.takes == takes]


def _choice(names: list[str], rng: Random, weights: Mapping[str, float]) -> str:
    return rng.choices(names, [weights.get(name, 1.0) for name in names])[0]
