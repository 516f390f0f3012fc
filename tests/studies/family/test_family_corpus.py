"""Rows and files of the family: reproducible byte for byte, and corrupted exactly as their labels say."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from donod_fast.errors import InputError, StoreError
from donod_fast.studies.family import (
    BASE_MODEL,
    CLEAN,
    DEFAULT_CORRUPTIONS,
    KINDS,
    base_texts,
    training_rows,
    write_family,
)
from donod_fast.studies.family.corpus import FAMILIAR, operation_weights
from donod_fast.studies.family.corruptions import MASK
from donod_fast.studies.family.hidden_tests import pool
from donod_fast.studies.family.operations import OPERATIONS
from donod_fast.studies.family.programs import ARGUMENTS, Program
from donod_fast.studies.family.tasks import HELD_OUT_KINDS, TRAINING_KINDS, draw_programs

DIGESTS = {
    "train.jsonl": "25f06f43ca8744504b6a71cabb387e2bf78a5c0673279f322f8b5e39a6812894",
    "heldout.jsonl": "b2d485d73b5772705e36564fd28e4120b3ce898bba6a01594b3c7f28031b9ee9",
    "problems.jsonl": "5f38aaa53cacd3fba639c8c9f51ee8be1fdb32cb6700c6fb1e6e91dabaa5e609",
}
"""SHA-256 of ``write_family(out, seed=0, rows=300, tasks=20)``: another digest is another family, and its
studies cannot be compared with earlier ones."""


def test_the_files_are_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    files = write_family(tmp_path / "family", seed=0, rows=300, tasks=20)
    written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "family").iterdir()}
    assert written == DIGESTS
    assert files.base_model == BASE_MODEL


def test_another_seed_gives_other_files(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_family(tmp_path / str(seed), seed=seed, rows=50, tasks=5)
    for name in DIGESTS:
        assert (tmp_path / "0" / name).read_bytes() != (tmp_path / "1" / name).read_bytes()


def test_the_problem_file_has_humanevals_format(tmp_path: Path) -> None:
    files = write_family(tmp_path, seed=2, rows=10, tasks=12)
    problems = [json.loads(line) for line in files.problems.read_text().splitlines()]
    heldout = [json.loads(line) for line in files.heldout.read_text().splitlines()]
    assert [problem["task_id"] for problem in problems] == [f"Family/{at}" for at in range(12)]
    for problem, row in zip(problems, heldout, strict=True):
        assert set(problem) == {"task_id", "prompt", "canonical_solution", "test", "entry_point"}
        assert (row["prompt"], row["completion"]) == (problem["prompt"], problem["canonical_solution"])
        assert row["corruption"] == CLEAN
        space: dict[str, Any] = {}
        exec(problem["prompt"] + problem["canonical_solution"] + "\n" + problem["test"], space)
        space["check"](space[problem["entry_point"]])


@pytest.mark.parametrize("shares", [DEFAULT_CORRUPTIONS, {}, {"masked": 0.5, "gibberish": 0.5}, {"subtle_bug": 0.01}])
def test_each_corruption_has_exactly_its_share(shares: dict[str, float]) -> None:
    counts = Counter(row["corruption"] for row in training_rows(400, 3, shares))
    assert {kind: counts[kind] for kind in KINDS} == {kind: round(400 * shares.get(kind, 0.0)) for kind in KINDS}
    assert counts[CLEAN] == 400 - sum(counts[kind] for kind in KINDS)


def test_only_clean_completions_solve_their_prompt() -> None:
    """Each row beside the same prompt's tests, made from the program that wrote it."""
    rows = training_rows(300, 3)
    by_kind: dict[str, list[bool]] = {}
    for row, program in zip(rows, _programs_of(300, 3), strict=True):
        by_kind.setdefault(row["corruption"], []).append(_agrees(row, program))
    assert all(by_kind.pop(CLEAN))
    assert set(by_kind) == set(KINDS)
    for kind, verdicts in by_kind.items():
        assert not any(verdicts), kind


def test_a_corruption_damages_the_completion_as_its_name_says() -> None:
    for row in training_rows(400, 3):
        if row["corruption"] == "masked":
            assert MASK in row["completion"]
        if row["corruption"] in ("wrong_solution", "subtle_bug"):
            compile(row["prompt"] + row["completion"], "row", "exec")
        assert row["completion"].startswith("    ") and row["completion"].endswith("\n")
        assert row["prompt"].startswith("def ") and row["prompt"].endswith('"""\n')


def test_kinds_and_shares_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="'rust' is not known; known are wrong_solution"):
        training_rows(10, 0, {"rust": 0.1})
    with pytest.raises(InputError, match="at most 1 together"):
        training_rows(10, 0, {"masked": 0.7, "gibberish": 0.7})
    with pytest.raises(InputError, match="at least 0"):
        training_rows(10, 0, {"masked": -0.1})


def test_a_size_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size 'huge' is not known; known are tiny, medium"):
        write_family(tmp_path, seed=0, rows=1, tasks=1, size="huge")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_family(tmp_path / "file", seed=0, rows=1, tasks=1)


def test_no_held_out_solution_is_in_training_rows_or_base_texts() -> None:
    held = draw_programs(Random(9), HELD_OUT_KINDS, held_out=True)
    held_bodies = {_bare(program.body(ARGUMENTS[program.takes][0])) for program in islice(held, 600)}
    texts = [row["prompt"] + row["completion"] for row in training_rows(800, 4)]
    texts += [text.given + text.learned for text in islice(base_texts(4), 1200)]
    bodies = {_bare(text[text.index("\n    ") :]) for text in texts if text.startswith("def ")}
    bodies = {body.partition('"""\n')[2] or body.removeprefix("\n") for body in bodies}
    assert len(bodies) > 500
    assert not held_bodies & bodies


def test_frequent_operations_are_over_represented_in_training() -> None:
    weights = operation_weights()
    ranked = sorted(weights, key=weights.__getitem__)
    fifth = len(ranked) // 5
    drawn = draw_programs(Random(3), TRAINING_KINDS, held_out=False)

    def frequent_to_rare(programs: list[Program]) -> float:
        counts = Counter(name for program in programs for name in program.names)
        return sum(counts[name] for name in ranked[-fifth:]) / sum(counts[name] for name in ranked[:fifth])

    assert frequent_to_rare(_programs_of(1000, 3)) > 1.3 * frequent_to_rare(list(islice(drawn, 1000)))


def test_some_operations_are_familiar_to_the_base_model_and_some_are_not() -> None:
    names = {one.name for one in OPERATIONS}
    assert names >= FAMILIAR
    assert 0.35 * len(names) < len(FAMILIAR) < 0.65 * len(names)
    texts = list(islice(base_texts(1), 400))
    asked = [text for text in texts if '"""' in text.given]
    assert 0.55 * 400 < len(asked) < 0.75 * 400
    assert all(text.given == "" and '"""' not in text.learned for text in texts if text not in asked)
    assert list(islice(base_texts(1), 20)) == texts[:20]


def _programs_of(count: int, seed: int) -> list[Program]:
    """The programs that ``training_rows`` draws first, before any wording."""
    drawn = draw_programs(Random(f"training rows {seed}"), TRAINING_KINDS, held_out=False, weights=operation_weights())
    return list(islice(drawn, count))


def _agrees(row: dict[str, Any], program: Program) -> bool:
    space: dict[str, Any] = {}
    name = row["prompt"][len("def ") : row["prompt"].index("(")]
    try:
        exec(row["prompt"] + row["completion"], space)
        return all(repr(space[name](value)) == repr(program(value)) for value in pool(program.takes))
    except Exception:
        return False


def _bare(text: str) -> str:
    """The text with its argument named by its type, so that only what is computed is left."""
    for kind, names in ARGUMENTS.items():
        # In a comprehension x is not an argument.
        used = [name for name in names if name != "x" or " for x " not in text]
        text = re.sub(rf"\b({'|'.join(used)})\b", kind.upper(), text)
    return text
