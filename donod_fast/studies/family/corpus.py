"""Training rows with planted corruptions, rows of held-out tasks, and the base model's own text.

Operations are drawn by Zipf's law in training rows and uniformly in held-out tasks. As in real corpora, a few
operations are frequent, and the rare ones decide the result. The order of frequency is the same for every seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from donod_fast.errors import InputError
from donod_fast.studies.family.corruptions import CLEAN, KINDS
from donod_fast.studies.family.operations import OPERATIONS
from donod_fast.studies.family.programs import ARGUMENTS, NAMES
from donod_fast.studies.family.tasks import TRAINING_KINDS, Task, draw_programs, write_program

Row = dict[str, Any]
"""``id``, ``prompt``, ``completion``, ``kind`` and ``corruption``; only the reports read the last two."""

DEFAULT_CORRUPTIONS = {
    "wrong_solution": 0.10,
    "subtle_bug": 0.08,
    "broken_code": 0.04,
    "masked": 0.04,
    "gibberish": 0.04,
}
"""Share of all rows that each kind of corruption gets by default: 30 % in all."""

ZIPF = 0.25

FEWEST_OTHERS = 100
"""Minimum number of programs from which wrong solutions are taken; small sets of rows have fewer."""


def _order(name: str) -> str:
    return hashlib.sha256(f"rank of {name}".encode()).hexdigest()


def operation_weights(zipf: float = ZIPF) -> dict[str, float]:
    """Weight of each operation in training rows: its rank to the power of ``-zipf``."""
    ranked = sorted((operation.name for operation in OPERATIONS), key=_order)
    return {name: 1.0 / rank**zipf for rank, name in enumerate(ranked, start=1)}


FAMILIAR_SHARE = 0.5
ALIGNED_SHARE, CODE_SHARE = 0.65, 0.2
"""Shares of the base model's texts: docstring with body, code without docstring; the rest are only comments."""


class BaseText(NamedTuple):
    """A text for the base model: ``learned`` follows ``given``, and only ``learned`` has a loss."""

    given: str
    learned: str


def _place(name: str, salt: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{salt} {name}".encode()).digest()[:8]) / 2**64


FAMILIAR = frozenset(one.name for one in OPERATIONS if _place(one.name, "known") < FAMILIAR_SHARE)
"""Operations whose requests the base model has seen with their code; it knows others only separately."""


def training_rows(
    count: int, seed: int, corrupted: Mapping[str, float] | None = None, *, zipf: float = ZIPF
) -> list[Row]:
    """Rows with programs that are not held out; some rows are corrupted on purpose.

    Args:
        count: number of rows.
        seed: determines the corpus: programs, wording, corrupted rows and their corruption.
        corrupted: share of all rows for each kind of :data:`KINDS`; ``DEFAULT_CORRUPTIONS`` by default.
        zipf: exponent of the frequencies of operations; 0 draws them uniformly.

    Returns:
        Rows whose ``completion`` is right if ``corruption`` is ``none``. Programs are drawn with replacement, so
        frequent ones recur in other words, as in real corpora.

    Raises:
        InputError: a kind is unknown, or the shares are negative or exceed 1.
    """
    shares = DEFAULT_CORRUPTIONS if corrupted is None else corrupted
    unknown = sorted(set(shares) - set(KINDS))
    if unknown:
        raise InputError(f"corruption {unknown[0]!r} is not known; known are {', '.join(KINDS)}")
    if min(shares.values(), default=0.0) < 0 or sum(shares.values()) > 1 + 1e-9:
        raise InputError(f"shares of corruptions must be at least 0 and at most 1 together, not {dict(shares)}")

    rng = Random(f"training rows {seed}")
    drawn = draw_programs(rng, TRAINING_KINDS, held_out=False, weights=operation_weights(zipf))
    programs = list(islice(drawn, count))
    kinds = [kind for kind in KINDS for _ in range(round(shares.get(kind, 0.0) * count))][:count]
    kinds += [CLEAN] * (count - len(kinds))
    rng.shuffle(kinds)
    others = programs + list(islice(drawn, max(0, FEWEST_OTHERS - count)))
    rows = []
    for number, (program, kind) in enumerate(zip(programs, kinds, strict=True)):
        written = write_program(program, rng)
        body = written.body if kind == CLEAN else KINDS[kind](program, written.argument, rng, others)
        rows.append(_row(f"family-{number:05d}", written.prompt, body, program.kind, kind))
    return rows


def task_rows(tasks: Sequence[Task]) -> list[Row]:
    """Tasks with their right solutions as rows, to measure a loss on."""
    return [_row(task.task_id, task.prompt, task.solution, task.kind, CLEAN) for task in tasks]


def base_texts(seed: int) -> Iterator[BaseText]:
    """Endless texts for the base model, none with a held-out signature.

    Most are functions of familiar operations: docstring given, body learned. The others are functions of any operation
    without a docstring, and comments that request any operation without code. So for operations that are not familiar
    the model knows the wording and the code, but not which belongs to which.
    """
    rng = Random(f"base texts {seed}")
    weights = {one.name: float(one.name in FAMILIAR) for one in OPERATIONS}
    familiar = draw_programs(rng, TRAINING_KINDS, held_out=False, weights=weights)
    anything = draw_programs(rng, TRAINING_KINDS, held_out=False)
    while True:
        chance = rng.random()
        if chance < ALIGNED_SHARE:
            written = write_program(next(familiar), rng)
            yield BaseText(written.prompt, written.body)
        elif chance < ALIGNED_SHARE + CODE_SHARE:
            program = next(anything)
            argument = rng.choice(ARGUMENTS[program.takes])
            yield BaseText("", f"def {rng.choice(NAMES)}({argument}):\n{program.body(argument)}")
        else:
            yield BaseText("", f"# {next(anything).said(rng)}\n")


def _row(name: str, prompt: str, completion: str, kind: str, corruption: str) -> Row:
    return {"id": name, "prompt": prompt, "completion": completion, "kind": kind, "corruption": corruption}
