"""Whatever a program answers: its judge takes bounded time and memory, and the program does not pass."""

from __future__ import annotations

import os
import random
import struct
import sys
import tempfile
from collections import deque

import pytest
from attack_counts import Attacks
from hostile_answers import KINDS, NAMED, Hostile
from judge_meter import JudgeMeter
from judging_cases import ADD, RIGHT, evalplus, human_eval

from donod_fast.evaluation.judging import judge, wire
from donod_fast.evaluation.judging import relay as relaying
from donod_fast.evaluation.judging.wording import brief
from donod_fast.evaluation.sandbox import Isolation, Limits, Sandbox, find_isolation

SECONDS = 1.0
MEMORY = 512 << 20
CALLER = 64 << 20
"""The caller relays answers of 64 MiB part by part."""
REASONS = {"failed", "error", "timeout", "memory", "output", "protocol", "exited"}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """A sandbox with room for a program that makes an answer of 64 MiB."""
    if sys.platform != "linux":
        pytest.skip("programs run on Linux")
    return Sandbox(find_isolation(unsafe=True), Limits(memory=1 << 30))


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each judgement that starts: a lost judge and a doubtful time-out cost a second one."""
    found: list[str] = []
    once = relaying._judge_once

    def counted(*given: object, **named: object) -> object:
        found.append("judged")
        return once(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(relaying, "_judge_once", counted)
    return found


def gets_through(hostile: Hostile, sandbox: Sandbox, judged: list[str]) -> str:
    """What one hostile answer achieves; empty if it is judged within the limits."""
    judged.clear()
    with JudgeMeter() as meter:
        verdict = judge(hostile.check, hostile.program, sandbox, seconds=SECONDS)
    achieved = [
        verdict.passed and "it passes",
        verdict.status not in REASONS and f"status {verdict.status}",
        verdict.detail.startswith("the tests'") and f"blamed on the tests: {verdict.detail}",
        len(judged) > 1 and f"{len(judged)} judgements",
        meter.processor > 3 * SECONDS and f"{meter.processor:.1f} s of processor time",
        meter.memory > MEMORY and f"{meter.memory >> 20} MiB in the judge",
        meter.growth > CALLER and f"{meter.growth >> 20} MiB in the caller",
    ]
    return "; ".join(filter(None, achieved))


@pytest.mark.attack
@pytest.mark.parametrize("kind", KINDS)
def test_any_hostile_answer_is_judged_within_the_limits(
    kind: str, sandbox: Sandbox, judged: list[str], attacks: Attacks
) -> None:
    through = {}
    number = attacks.number(1, 15)
    for trial in range(number):
        hostile = KINDS[kind](random.Random(f"{kind} {trial}"))
        if achieved := gets_through(hostile, sandbox, judged):
            through[f"{trial}: {hostile.name}"] = achieved
    attacks.count("judge", kind, tried=number, got_through=len(through))
    assert not through


@pytest.mark.attack
def test_the_answers_that_once_kept_a_judge_busy(sandbox: Sandbox, judged: list[str], attacks: Attacks) -> None:
    tried = list(NAMED.items())[:: 1 if attacks.full else 4]
    through = {name: achieved for name, one in tried if (achieved := gets_through(one, sandbox, judged))}
    attacks.count("judge", "answers known to keep a judge busy", tried=len(tried), got_through=len(through))
    assert not through


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("a dict with colliding keys", "timeout", "its answers cost the tests more than 1 s of processor time"),
        ("a set of a range", "memory", "the tests ran out of memory on the program's answers"),
    ],
)
def test_a_limit_of_the_tests_work_is_a_clear_verdict(name: str, status: str, says: str, sandbox: Sandbox) -> None:
    verdict = judge(NAMED[name].check, NAMED[name].program, sandbox, seconds=SECONDS)
    assert (verdict.status, verdict.detail, verdict.base) == (status, says, False)
    assert judge(ADD, RIGHT, sandbox).passed  # whatever became of that judge, the next check has one


@pytest.mark.parametrize("answer", ["[i * (2**61 - 1) for i in range(60_000)]", "range(10**12)"])
def test_base_tests_stay_passed_if_an_added_input_is_cut_off(answer: str, sandbox: Sandbox) -> None:
    check = evalplus("def Diff(x):\n    return [x]", [[1]], [[2]], rules="mbpp", entry_point="Diff")
    verdict = judge(check, f"def Diff(x): return [1] if x == 1 else {answer}", sandbox, seconds=SECONDS)
    assert verdict.status in {"timeout", "memory"}, verdict
    assert (verdict.base, verdict.plus) == (True, False)


def test_a_long_answer_that_is_right_passes(sandbox: Sandbox) -> None:
    check = evalplus("def f(n):\n    return list(range(10**15, 10**15 + n))", [[7_000_000]], [])
    program = "def f(n): return [10**15 + i for i in range(n)]"
    with JudgeMeter() as meter:
        assert judge(check, program, sandbox, seconds=30).passed
    assert meter.growth < CALLER


@pytest.mark.parametrize("value", ["float('nan')", "[float('nan')]", "(1, float('nan'))"])
def test_equal_bytes_are_no_equal_answer_if_the_value_is_not(value: str, sandbox: Sandbox) -> None:
    source = f"def f(x):\n    return {value}"
    assert judge(evalplus(source, [[1]], []), source, sandbox).status == "failed"


def test_a_tolerance_found_by_equal_bytes_holds_for_later_inputs(sandbox: Sandbox) -> None:
    check = evalplus("def f(x):\n    return x / 2", [[1.0], [2.0]], [])
    assert judge(check, "def f(x): return x / 2 if x < 2 else 1 + 1e-8", sandbox).passed
    assert judge(check, "def f(x): return x / 2 if x < 2 else 1 + 1e-4", sandbox).status == "failed"


def test_a_reference_and_its_program_draw_the_same_random_numbers(sandbox: Sandbox) -> None:
    source = "import random\ndef f(x):\n    return random.random()"
    assert judge(evalplus(source, [[1], [2]], [[3]]), source, sandbox).passed


def test_a_reference_may_take_more_than_an_answer_may(sandbox: Sandbox) -> None:
    check = evalplus("def f(x):\n    return len(set(range(8_000_000))) + x", [[1]], [])
    assert judge(check, "def f(x): return 8_000_000 + x", sandbox, seconds=1).passed


def test_a_reference_with_more_than_an_answer_may_have_fails_it(sandbox: Sandbox) -> None:
    check = evalplus("def f(x):\n    return bytes(65 << 20)", [[1]], [])
    verdict = judge(check, "def f(x): return b''", sandbox)
    assert (verdict.status, verdict.detail) == ("failed", "f(1) is b'', not a value above the size limit")


def test_a_reference_that_ends_its_process_is_an_error_of_the_tests(sandbox: Sandbox) -> None:
    check = evalplus("import os\ndef f(x):\n    os._exit(3)", [[1]], [])
    assert judge(check, "def f(x): return 1", sandbox).detail == "the benchmark's reference ended its process"


def test_a_message_of_several_frames_crosses_both_ways(sandbox: Sandbox) -> None:
    check = human_eval("assert candidate(b'x' * 3_000_000) == b'x' * 3_000_000")
    assert judge(check, "def f(x): return x", sandbox).passed


@pytest.mark.parametrize("size", [0, 1, wire.PART - 1, wire.PART, wire.PART + 1, 2 * wire.PART, 3 * wire.PART - 1])
def test_a_message_of_any_size_arrives(size: int) -> None:
    message = random.Random(size).randbytes(size)
    with tempfile.TemporaryFile() as file:
        wire.send(file.fileno(), message, b"?")
        wire.send(file.fileno(), b"next")
        for part in wire.parts(message):
            os.write(file.fileno(), struct.pack(">I", len(part) + 1) + b"=" + part)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        assert [wire.receive(file.fileno()) for _ in range(3)] == [b"?", message, b"next"]
        assert wire.receive_answer(file.fileno()) == (True, message)


def test_a_reason_ends_an_answer_that_has_begun() -> None:
    with tempfile.TemporaryFile() as file:
        for frame in (b"=" + bytes(wire.PART), b"!reason"):
            os.write(file.fileno(), struct.pack(">I", len(frame)) + frame)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        assert wire.receive_answer(file.fileno()) == (False, b"reason")


def test_a_value_of_any_size_has_a_brief_form_that_shows_no_cut() -> None:
    chance = random.Random(0)

    def value(depth: int) -> object:
        kind = chance.choice([list, tuple, set, dict, str, int, deque, frozenset])
        count = chance.choice([0, 1, 3, 30, 500])
        if kind is int or not depth:
            return chance.randrange(10 ** chance.randint(1, 30))
        if kind is str:
            return "a'b" * count
        if kind is dict:
            return {number: value(depth - 1) for number in range(min(count, 30))}
        if kind in (set, frozenset):
            return kind(range(count))
        return kind(value(depth - 1) for _ in range(min(count, 30)))

    for _ in range(300):
        one = value(4)
        text = repr(one)
        assert brief(one) == (text if len(text) <= 80 else text[:79] + "…")
    assert len(brief([[[0] * 1000] * 1000] * 10**6)) == 80


@pytest.mark.skipif(sys.platform != "linux", reason="programs run on Linux")
def test_the_limits_hold_without_isolation() -> None:
    sandbox = Sandbox(Isolation.NONE, Limits(memory=1 << 30))
    for name, status in (("a dict with colliding keys", "timeout"), ("a set of a range", "memory")):
        assert judge(NAMED[name].check, NAMED[name].program, sandbox, seconds=SECONDS).status == status
