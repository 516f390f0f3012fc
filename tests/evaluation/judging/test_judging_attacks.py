"""No program turns a failure into a pass."""

from __future__ import annotations

import builtins
import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from attack_counts import Attacks
from attack_programs import FLOODS, FORGES, LEAVES, PATCHES, PRETENDS
from judging_cases import ADD, MARKER, PROMPT, RIGHT, human_eval

from donod_fast.evaluation.judging import Verdict, judge
from donod_fast.evaluation.judging.encoder import encode
from donod_fast.evaluation.judging.remote import NONCE, Program, Remote, RemoteIterator, Stopped
from donod_fast.evaluation.sandbox import Sandbox

SECONDS = 2.0  # a hostile program waits as long as it may


def verdict_on(program: str, sandbox: Sandbox, seconds: float = SECONDS) -> Verdict:
    return judge(ADD, program, sandbox, seconds=seconds)


@pytest.mark.parametrize("name", LEAVES)
def test_a_program_that_exits_before_its_last_answer_has_not_passed(name: str, walls: Sandbox) -> None:
    verdict = verdict_on(LEAVES[name], walls)
    assert not verdict.passed and not verdict.base and verdict.detail, verdict
    assert verdict.status in {"exited", "timeout", "error"}, verdict


@pytest.mark.parametrize("name", PRETENDS)
def test_a_value_that_pretends_to_be_right_is_not(name: str, sandbox: Sandbox) -> None:
    verdict = verdict_on(PRETENDS[name], sandbox)
    assert verdict.status in {"failed", "error", "protocol"} and not verdict.base, verdict


@pytest.mark.parametrize("name", PATCHES)
def test_a_program_that_patches_its_own_process_has_not_passed(name: str, sandbox: Sandbox) -> None:
    verdict = verdict_on(PATCHES[name], sandbox)
    assert not verdict.passed and not verdict.base, verdict


@pytest.mark.parametrize("name", FORGES)
def test_a_forged_result_is_none(name: str, walls: Sandbox) -> None:
    verdict = verdict_on(FORGES[name], walls)
    assert not verdict.passed and not verdict.base, verdict


def test_an_answer_sent_before_its_question_is_refused(sandbox: Sandbox) -> None:
    verdict = verdict_on(FORGES["an answer ahead of its question"], sandbox)
    assert (verdict.status, verdict.detail) == ("protocol", "an answer to something that was not asked")


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_a_verdict(name: str, walls: Sandbox) -> None:
    verdict = verdict_on(FLOODS[name], walls, seconds=0.7)
    assert not verdict.passed and len(verdict.detail) <= 300 and "\n" not in verdict.detail, verdict


def test_a_right_program_passes_by_the_same_way(walls: Sandbox) -> None:
    assert verdict_on(RIGHT, walls) == Verdict("passed", "", True, None, pytest.approx(0, abs=60))


def test_a_right_program_with_much_output_threads_and_children_passes(walls: Sandbox) -> None:
    program = (
        "import os, sys, threading\nprint('x' * 500_000)\nprint('passed?', file=sys.stderr)\n"
        "threading.Thread(target=print).start()\nif os.fork() == 0: os._exit(1)\n" + RIGHT
    )
    assert verdict_on(program, walls, seconds=10).passed


SEARCH = f"""
import os, sys
WANTED = {MARKER[::-1]!r}[::-1]

OF_THE_SYSTEM = ("/proc", "/sys", "/dev", "/usr", sys.prefix, sys.base_prefix)

def places():
    yield "argv", repr(sys.argv)
    yield "environment", repr(dict(os.environ))
    for folder, folders, names in os.walk("/"):
        if folder.startswith(OF_THE_SYSTEM):
            folders[:] = []
            continue
        for name in names:
            try:
                yield f"{{folder}}/{{name}}", open(f"{{folder}}/{{name}}", "rb").read(1 << 20).decode("latin-1")
            except OSError:
                continue
    for process in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                yield f"/proc/{{process}}/{{name}}", open(f"/proc/{{process}}/{{name}}", "rb").read().decode("latin-1")
            except OSError:
                continue

def memory(process):
    # Counted over all that can be read of a process; the searcher's own copy is one that it knows.
    found = 0
    for line in open(f"/proc/{{process}}/maps"):
        span, rights = line.split()[:2]
        first, last = (int(part, 16) for part in span.split("-"))
        if "r" not in rights or "[v" in line:
            continue
        with open(f"/proc/{{process}}/mem", "rb", 0) as file:
            file.seek(first)
            while first < last:
                part = file.read(min(last - first, 1 << 20))
                if not part:
                    break
                first += len(part)
                turned = part[::-1]  # looked for backwards, so that looking leaves no copy of what is looked for
                found += turned.count(BACKWARDS)
    return found

BACKWARDS = {MARKER[::-1]!r}.encode()

def add(a, b):
    for place, text in places():
        if WANTED in text:
            return f"found in {{place}}"
    return "nothing found"
"""


def test_the_tests_are_nowhere_in_the_reach_of_the_program(walls: Sandbox) -> None:
    verdict = verdict_on(SEARCH, walls, seconds=20)
    assert "nothing found" in verdict.detail, verdict


def test_the_search_finds_what_the_program_can_reach(walls: Sandbox) -> None:
    # The control: the same search with the marker in a file of its own.
    program = SEARCH + "\nopen('left.txt', 'w').write(WANTED)\n"
    assert "found in /" in verdict_on(program, walls, seconds=20).detail


MEMORY = """
def add(a, b):
    import os
    global WANTED
    del WANTED
    {extra}
    return f"copies: {{memory(os.getpid())}}; others: {{others()}}"

def others():
    readable = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        if int(process) != os.getpid():
            try:
                memory(process)
                readable.append(process)
            except OSError:
                continue
    return readable
"""
FORWARDS = "copy = bytes(reversed(BACKWARDS))"


def test_no_copy_of_the_tests_is_in_the_memory_of_the_program(walls: Sandbox) -> None:
    searcher = SEARCH.replace(f"WANTED = {MARKER[::-1]!r}[::-1]", "WANTED = None")
    verdict = verdict_on(searcher + MEMORY.format(extra="pass"), walls, seconds=20)
    assert "'copies: 0; others: []'" in verdict.detail, verdict


def test_the_search_of_memory_finds_a_copy_that_is_there(walls: Sandbox) -> None:
    searcher = SEARCH.replace(f"WANTED = {MARKER[::-1]!r}[::-1]", "WANTED = None")
    verdict = verdict_on(searcher + MEMORY.format(extra=FORWARDS), walls, seconds=20)
    assert "copies: " in verdict.detail and "copies: 0" not in verdict.detail, verdict


def test_a_prompts_text_alone_is_a_wrong_program(sandbox: Sandbox) -> None:
    assert verdict_on(PROMPT, sandbox).status == "failed"


LOOPS: dict[str, Callable[[Any], object]] = {
    "all of a map": lambda f: all(map(f, [1, 2])),
    "any of a map": lambda f: any(map(f, [1, 2])),
    "a list of a map": lambda f: list(map(f, [1, 2])),
    "a sum of a map": lambda f: sum(map(f, [1, 2])),
    "a loop over a map": lambda f: [0 for one in map(f, [1, 2]) if one == 5],
    "calls until a value": lambda f: list(iter(f, 5)),
    "a filter": lambda f: list(filter(f, [1, 2])),
    "a zip": lambda f: list(zip(map(f, [1]), [3], strict=False)),
    "take while": lambda f: list(itertools.takewhile(f, [1, 2])),
    "drop while": lambda f: list(itertools.dropwhile(f, [1, 2])),
    "star map": lambda f: list(itertools.starmap(f, [(1,), (2,)])),
    "groups": lambda f: list(itertools.groupby([1, 2], f)),
    "accumulate": lambda f: list(itertools.accumulate([1, 2], f)),
    "reduce": lambda f: functools.reduce(f, [1, 2, 3]),
    "sort": lambda f: sorted([2, 1], key=f),
    "greatest": lambda f: max([2, 1], key=f),
    "a generator": lambda f: set(f(one) for one in [1, 2]),  # noqa: C401
    "a dict": lambda f: dict(map(f, [1, 2])),
    "join": lambda f: "".join(map(f, [1, 2])),
    "unpacking": lambda f: [*map(f, [1, 2])],
    "a default": lambda f: next(map(f, [1, 2]), 5),
    "in": lambda f: 5 in map(f, [1, 2]),
}


def raising(names: list[str]) -> Program:
    """A program each of whose answers is an exception of these class names."""
    return Program(lambda question: bytearray(question[:NONCE] + encode(("raised", names, ""))))


@pytest.mark.attack
def test_no_exception_of_a_program_ends_a_loop_of_the_tests(attacks: Attacks) -> None:
    kinds = [one for one in vars(builtins).values() if isinstance(one, type) and issubclass(one, BaseException)]
    raised = [[kind.__name__ for kind in one.__mro__[:-1]] for one in kinds]
    raised += [["Own", *names] for names in raised] + [[name, "Exception"] for name in ("GeneratorExit", "Own")]
    through = []
    for names, (loop, action) in itertools.product(raised, LOOPS.items()):
        try:
            action(Remote(raising(names), 0, "function"))
            through.append((names[0], loop))
        except (Exception, Stopped):
            continue
    attacks.count("judge", "exceptions that end a loop", tried=len(raised) * len(LOOPS), got_through=len(through))
    assert not through


def test_an_iterator_of_a_program_still_ends() -> None:
    ended = raising(["StopIteration", "Exception", "BaseException"])
    assert [one for one in RemoteIterator(ended, 0, "iterator")] == []  # noqa: C416  (list() asks for a length too)


@pytest.mark.parametrize("test", ["all(map(lambda x: candidate(x) == x, [1]))", "not list(map(candidate, [1]))"])
def test_a_program_that_stops_an_iteration_has_not_passed(test: str, sandbox: Sandbox) -> None:
    verdict = judge(human_eval(f"assert {test}"), "def f(x): raise StopIteration", sandbox)
    assert verdict.status == "error" and "StopIteration" in verdict.detail, verdict
