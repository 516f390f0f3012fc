"""Planted corruptions of a training row's completion; each kind occurs in real corpora."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from donod_fast.studies.family.hidden_tests import mutants, outputs, pool
from donod_fast.studies.family.operations import OPERATIONS
from donod_fast.studies.family.programs import Program, is_sound, step_of
from donod_fast.studies.family.tasks import is_held_out

CLEAN = "none"
MASK = "___"

_PIECE = re.compile(r"\w+|[^\w\s]+")
_GIBBERISH = "abcdefghijklmnopqrstuvwxyz+-*/()[]=:"


def wrong_solution(program: Program, argument: str, rng: Random, others: Sequence[Program]) -> str:
    """The body of another row's program on the same type that returns something else."""
    values = pool(program.takes)
    right = outputs(program, values)
    fitting = [other for other in others if other.takes == program.takes]
    while fitting:
        other = fitting.pop(rng.randrange(len(fitting)))
        if outputs(other, values) != right:
            return other.body(argument)
    raise ValueError(f"no other row has a program on a {program.takes} that differs from {program}")


def subtle_bug(program: Program, argument: str, rng: Random, others: Sequence[Program]) -> str:
    """The body of a program with one small mistake (or one step too many) that returns something else.

    It never has a held-out signature: the model must not see such a combination, not even as a mistake.
    """
    values = pool(program.takes)
    right = outputs(program, values)
    slips = list(mutants(program))
    rng.shuffle(slips)
    after = [step_of(one.name, rng) for one in OPERATIONS if one.takes == program.steps[-1].operation.gives]
    rng.shuffle(after)
    for wrong in (*slips, *(Program((*program.steps, step)) for step in after if not program.condition)):
        sound = bool(wrong.steps) and wrong.takes == program.takes and (wrong.condition or is_sound(wrong.steps))
        if sound and not is_held_out(wrong.signature) and outputs(wrong, values) != right:
            return wrong.body(argument)
    raise ValueError(f"no program is near {program}")


def broken_code(program: Program, argument: str, rng: Random, others: Sequence[Program]) -> str:
    """The body with its words and signs in another order and unchanged white space."""
    body = program.body(argument)
    pieces = _PIECE.findall(body)
    while True:
        shuffled = rng.sample(pieces, len(pieces))
        if shuffled != pieces:
            return _replaced(body, shuffled)


def masked(program: Program, argument: str, rng: Random, others: Sequence[Program]) -> str:
    """The body with 40 % of its words and signs (at least one) replaced by a blank."""
    body = program.body(argument)
    pieces = _PIECE.findall(body)
    count = len(pieces)
    hidden = set(rng.sample(range(count), max(1, round(0.4 * count))))
    return _replaced(body, [MASK if at in hidden else piece for at, piece in enumerate(pieces)])


def gibberish(program: Program, argument: str, rng: Random, others: Sequence[Program]) -> str:
    """Random letters and signs, as many as in the body."""
    return _PIECE.sub(lambda piece: "".join(rng.choices(_GIBBERISH, k=len(piece.group()))), program.body(argument))


def _replaced(body: str, pieces: Sequence[str]) -> str:
    left = iter(pieces)
    return _PIECE.sub(lambda _: next(left), body)


KINDS: dict[str, Callable[[Program, str, Random, Sequence[Program]], str]] = {
    "wrong_solution": wrong_solution,
    "subtle_bug": subtle_bug,
    "broken_code": broken_code,
    "masked": masked,
    "gibberish": gibberish,
}
"""Corruptions by name: (program, its argument's name, random generator, programs of the other rows) → body."""
