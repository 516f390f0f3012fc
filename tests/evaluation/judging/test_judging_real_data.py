"""The benchmarks' own solutions and examples all pass the complete judgement.

By default all of HumanEval and every tenth task of the others; ``DONOD_FAST_ALL_TASKS=1`` runs all of them (minutes).
"""

from __future__ import annotations

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from donod_fast.evaluation.judging import Check, Verdict, evalplus_check, human_eval_check, judge, mbpp_check
from donod_fast.evaluation.sandbox import Sandbox

DATA = Path(__file__).parents[3].parent / "shared" / "data"
TOO_LARGE = {"Mbpp/255"}
"""Its largest added input asks for a list of 1.7 million tuples of 77 strings: 1.1 GB, more than a program may hold."""
EVERY = 1 if os.environ.get("DONOD_FAST_ALL_TASKS") else 10

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (DATA / "humaneval").is_dir(), reason="the real data of ../shared is absent"),
]


def records(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def verdicts(work: list[tuple[Check, str]], sandbox: Sandbox, seconds: float | None = None) -> list[Verdict]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda one: judge(*one, sandbox, seconds=seconds), work))


def misses(work: list[tuple[Check, str]], found: list[Verdict]) -> dict[str, Verdict]:
    return {check.task_id: verdict for (check, _), verdict in zip(work, found, strict=True) if not verdict.passed}


def completed(record: dict[str, Any]) -> str:
    return f"{record['prompt']}{record['canonical_solution']}"


@pytest.mark.slow
def test_every_canonical_solution_of_human_eval_passes(sandbox: Sandbox) -> None:
    work = [(human_eval_check(one), completed(one)) for one in records("humaneval/HumanEval.jsonl.gz")]
    assert len(work) == 164
    assert not misses(work, verdicts(work, sandbox))


@pytest.mark.slow
def test_canonical_solutions_of_mbpp_pass_the_challenge_tests_included(sandbox: Sandbox) -> None:
    every = records("mbpp/mbpp.jsonl")
    assert len(every) == 974
    special = [one for one in every if one["task_id"] in (126, 367, 596, 601, 912, 927)]  # builtins, classes, modules
    work = [(mbpp_check(one, challenge=True), one["code"]) for one in [*every[::EVERY], *special]]
    assert not misses(work, verdicts(work, sandbox))


@pytest.mark.slow
def test_canonical_solutions_of_sanitized_mbpp_pass(sandbox: Sandbox) -> None:
    every = records("mbpp/sanitized-mbpp.json")
    assert len(every) == 427
    work = [(mbpp_check(one), one["code"]) for one in every[::EVERY]]
    assert not misses(work, verdicts(work, sandbox))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "heavy"),
    [
        ("humaneval_plus/HumanEvalPlus.jsonl.gz", 164, ("HumanEval/130",)),
        ("mbpp_plus/MbppPlus.jsonl.gz", 378, ()),
    ],
)
def test_reference_solutions_of_evalplus_pass_base_and_plus(
    name: str, count: int, heavy: tuple[str, ...], sandbox: Sandbox
) -> None:
    every = records(name)
    assert len(every) == count
    some = every if EVERY == 1 else [one for one in every[::EVERY] if one["task_id"] not in heavy]
    work = [(evalplus_check(one), completed(one)) for one in some]
    found = verdicts(work, sandbox)
    assert not {check.task_id: one for (check, _), one in zip(work, found, strict=True) if not one.base}
    assert set(misses(work, found)) <= TOO_LARGE
    assert all(verdict.plus == verdict.passed for verdict in found)


def test_the_example_of_human_eval_has_three_of_six(sandbox: Sandbox) -> None:
    (problem,) = records("humaneval/example_problem.jsonl")
    samples = records("humaneval/example_samples.jsonl")
    work = [(human_eval_check(problem), problem["prompt"] + one["completion"]) for one in samples]
    # A command that is not there, ten seconds of sleep, an input that is empty, and three ways to indent.
    assert [one.status for one in verdicts(work, sandbox, seconds=3.0)] == [
        "error",
        "timeout",
        "error",
        "passed",
        "passed",
        "passed",
    ]


def test_wrong_answers_to_real_tasks_fail(sandbox: Sandbox) -> None:
    by_name = {one["task_id"]: one for one in records("humaneval/HumanEval.jsonl.gz")}
    poly = by_name["HumanEval/32"]
    cheat = "def poly(xs, x): return 0\ndef find_zero(xs): return 0.0\n"
    same = "def encode_cyclic(s): return s\ndef decode_cyclic(s): return s\n"
    work = [
        (human_eval_check(poly), cheat),
        (human_eval_check(poly), completed(poly) + "\ndef poly(xs, x): return 0\nfind_zero = lambda xs: 0.0\n"),
        (human_eval_check(by_name["HumanEval/38"]), same),
        *((human_eval_check(one), one["prompt"] + "    return None\n") for one in list(by_name.values())[::20]),
    ]
    assert {one.status for one in verdicts(work, sandbox)} <= {"failed", "error"}
