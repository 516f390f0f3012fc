"""Honest programs, right and wrong, under each kind of check."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from attack_counts import Attacks
from judging_cases import ADD, RIGHT, evalplus, human_eval, mbpp

from donod_fast.errors import CorpusError
from donod_fast.evaluation.judging import Check, judge
from donod_fast.evaluation.judging import relay as relaying
from donod_fast.evaluation.judging.judges import Turns
from donod_fast.evaluation.judging.load import Load
from donod_fast.evaluation.sandbox import Sandbox
from donod_fast.evaluation.sandbox.launcher import LAUNCHER


@pytest.mark.parametrize(
    ("program", "status", "says"),
    [
        (
            "def add(a, b): return a - b",
            "failed",
            "assert candidate(2, 3) == 5, SECRET: hidden-0f1e2d3c4b5a (the last answer was -1)",
        ),
        ("def add(a, b): raise ValueError('no')", "error", "ValueError: no, in assert candidate(2, 3) == 5, SECRET"),
        ("def add(a, b):\nreturn a", "syntax", "IndentationError"),
        ("def add(a, b: return a", "syntax", "SyntaxError"),
        ("def sub(a, b): return a", "no_entry_point", "the program defines no add"),
        ("import nothing_of_this_name", "error", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def add(a, b): return input()", "error", "EOFError"),
        ("add = 5", "error", "TypeError: 'int' object is not callable"),
        ("def add(a, b): return [0] * 10**10", "memory", "MemoryError"),
        ("class E(LookupError): pass\ndef add(a, b): raise E('x')", "error", "LookupError: E: x"),
        ("class E(Exception): pass\ndef add(a, b): raise E('x')", "error", "ProgramError: E: x"),
        ("def add(a): return a", "error", "TypeError: add() takes 1 positional argument but 2 were given"),
    ],
)
def test_a_wrong_program_gets_its_status_and_one_line(program: str, status: str, says: str, sandbox: Sandbox) -> None:
    verdict = judge(ADD, program, sandbox)
    assert (verdict.status, verdict.base, verdict.plus) == (status, False, None)
    assert says in verdict.detail and len(verdict.detail) <= 300


RIGHT_ANSWERS = {
    "generator": ("assert list(candidate(3)) == [0, 1, 2]", "def f(n):\n  for i in range(n): yield i"),
    "map": (
        "assert list(candidate(3)) == [0, 2, 4]\nassert candidate(3) != [0, 2, 4]",
        "def f(n): return map(lambda x: 2 * x, range(n))",
    ),
    "zip": ("assert dict(candidate('ab')) == {0: 'a', 1: 'b'}", "def f(s): return zip(range(9), s)"),
    "first items": (
        "it = candidate()\nassert [next(it), next(it)] == [0, 1]",
        "import itertools\ndef f(): return itertools.count()",
    ),
    "match": ("assert candidate('ab') and not candidate('b')", "import re\ndef f(s): return re.match('a', s)"),
    "match's attributes": ("assert candidate('ab').group(1) == 'b'", "import re\ndef f(s): return re.match('a(.)', s)"),
    "counter": (
        "assert candidate('aab') == {'a': 2, 'b': 1}\nassert candidate('aab').most_common(1) == [('a', 2)]",
        "from collections import Counter\nf = Counter",
    ),
    "named tuple": (
        "assert candidate(1) == (1, 2)",
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(x): return P(x, 2)",
    ),
    "callable object": ("assert candidate(2) == 3", "class F:\n  def __call__(self, x): return x + 1\nf = F()"),
    "lambda": ("assert candidate(2) == 3", "f = lambda x: x + 1"),
    "function of functions": ("assert candidate(2)(3) == 5", "def f(a): return lambda b: a + b"),
    "length and items": (
        "it = candidate()\nassert len(it) == 3 and it[1] == 7 and 7 in it and 8 not in it",
        "class L:\n  def __len__(self): return 3\n  def __getitem__(self, i): return [6, 7, 9][i]\ndef f(): return L()",
    ),
    "the same object": (
        "one = candidate()\nassert one == one and one != candidate(2) and one in [one]",
        "class C: pass\nkept = C()\ndef f(x=1): return kept if x == 1 else C()",
    ),
    "expected exception": (
        "try:\n    candidate(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False",
        "def f(x): return 1 / x",
    ),
    "expected class of its own": (
        "try:\n    candidate(0)\n    assert False, 'nothing raised'\n"
        "except ValueError as error:\n    assert 'bad' in str(error)",
        "class Bad(ValueError): pass\ndef f(x): raise Bad('bad')",
    ),
    "keyword arguments": ("assert candidate(1, b=2) == 3", "def f(a, b): return a + b"),
    "random": (
        "import random\nassert candidate() == random.random()",
        "import random\ndef f(): return random.random()",
    ),
    "data class": (
        "assert candidate(1).x == 1",
        "from dataclasses import dataclass\n@dataclass\nclass D:\n  x: int\ndef f(x): return D(x)",
    ),
    "numbers": ("assert abs(candidate(10) - 3.1623) < 1e-3", "import math\ndef f(x): return math.sqrt(x)"),
    "huge integers": ("assert candidate() == 7 ** 20000", "def f(): return 7 ** 20000"),
    "recursion as deep as Python has it": ("assert candidate(900) == 900", "def f(n): return n and 1 + f(n - 1)"),
    "state between calls": (
        "assert [candidate(), candidate()] == [1, 2]",
        "n = 0\ndef f():\n  global n\n  n += 1\n  return n",
    ),
    "given back": (
        "kept = candidate([1])\nassert candidate(kept) is None or True\nassert candidate([candidate([])]) is not None",
        "class N:\n  def __init__(self, x): self.x = x\ndef f(x): return N(x)",
    ),
}


@pytest.mark.parametrize("name", RIGHT_ANSWERS)
def test_what_a_right_program_may_answer_with(name: str, sandbox: Sandbox) -> None:
    body, program = RIGHT_ANSWERS[name]
    verdict = judge(human_eval(body), program, sandbox)
    assert verdict.passed and verdict.base and not verdict.detail, verdict


def test_test_helpers_come_from_the_prompt_and_never_from_the_program(sandbox: Sandbox) -> None:
    prompt = "def double(x):\n    return 2 * x\n\ndef halve(x):\n    '''The half.'''\n"
    check = human_eval(
        "assert double(candidate(8)) == 8\nassert double(candidate(3)) == 3", name="halve", prompt=prompt
    )
    assert judge(check, f"{prompt}    return x / 2\n", sandbox).passed
    cheat = "class E:\n  def __eq__(s, o): return True\ndef double(x): return x\ndef halve(x): return x"
    assert judge(check, cheat, sandbox).status == "failed"


def test_modules_that_the_tests_use_are_the_judges_own(sandbox: Sandbox) -> None:
    check = mbpp("assert f((1, 2)) == sys.getsizeof((1, 2))")
    assert judge(check, "import sys\ndef f(x): return sys.getsizeof(x)", sandbox).passed
    fake = "class sys:\n  getsizeof = staticmethod(lambda x: 0)\ndef f(x): return 0"
    assert judge(check, fake, sandbox).status == "failed"


def test_a_redefined_builtin_is_ignored_unless_it_is_the_task(sandbox: Sandbox) -> None:
    cheat = "def set(x): return 1\ndef sorted(x): return 1\ndef f(x): return 2"
    assert judge(mbpp("assert set(f(1)) == set([2])"), cheat, sandbox).status == "error"
    assert judge(mbpp("assert sum(10, 15) == 6", name="sum"), "def sum(a, b): return 6", sandbox).passed


def test_tests_that_build_objects_of_the_programs_classes_work(sandbox: Sandbox) -> None:
    setup = "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)"
    program = (
        "class Node:\n  def __init__(self, x): self.x, self.left, self.right = x, None, None\n"
        "def height(n): return 0 if n is None else 1 + max(height(n.left), height(n.right))"
    )
    assert judge(mbpp("assert height(root) == 3", name="height", setup=setup), program, sandbox).passed
    wrong = program.replace("1 + max", "2 + max")
    assert judge(mbpp("assert height(root) == 3", name="height", setup=setup), wrong, sandbox).status == "failed"
    pairs = mbpp("assert total([Pair(1, 2), Pair(3, 4)], 2) == 10", name="total")
    program = (
        "class Pair:\n  def __init__(s, a, b): s.sum = a + b\ndef total(pairs, n): return sum(p.sum for p in pairs)"
    )
    assert judge(pairs, program, sandbox).passed


def test_the_failing_test_of_several_is_named(sandbox: Sandbox) -> None:
    check = mbpp("assert f(1) == 1", "assert f(2) == 3", "assert f(3) == 3")
    assert "assert f(2) == 3 (the last answer was 2)" in judge(check, "def f(x): return x", sandbox).detail


def test_a_test_that_catches_everything_passes_no_exited_program(sandbox: Sandbox) -> None:
    check = human_eval("try:\n    candidate()\nexcept:\n    pass")
    assert judge(check, "import os\ndef f(): os._exit(0)", sandbox).status == "exited"
    assert judge(check, "def f(): raise SystemExit", sandbox).status == "exited"
    assert not judge(check, "def f(): raise SystemExit", sandbox).base
    assert judge(check, "def f(): raise ValueError", sandbox).passed


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("x = 1", "no check(candidate)"),
        ("def check(candidate: pass", "SyntaxError"),
        ("def check(candidate):\n    raise SystemExit(0)", "SystemExit"),
        ("import os\ndef check(candidate):\n    os._exit(0)", "ended with 0"),
        ("import os\ndef check(candidate):\n    os.kill(os.getpid(), 9)", "-9"),
        ("import os\ndef check(candidate):\n    os.kill(os.getppid(), 9)\n    os._exit(0)", "ended"),
        ("def check(candidate):\n    candidate(lambda: 1)", "function, which is not plain data"),
    ],
)
def test_invalid_tests_pass_nothing(test: str, says: str, walls: Sandbox) -> None:
    check = Check(kind="human-eval", task_id="t", entry_point="f", prompt="def f(x):\n", test=test)
    verdict = judge(check, "def f(x): return x", walls)
    assert verdict.status in {"error", "timeout"} and says in verdict.detail, verdict
    assert judge(ADD, RIGHT, walls).passed  # whatever became of that judge, the next check has one


def test_no_check_finds_what_another_left_behind(sandbox: Sandbox) -> None:
    mark = human_eval("import builtins, os\nbuiltins.left = 1\nopen('left', 'w').close()")
    assert judge(mark, "def f(): pass", sandbox).passed
    look = human_eval("import builtins\nassert not hasattr(builtins, 'left')")
    assert judge(look, "def f(): pass", sandbox).passed


def test_a_check_in_evalplus_form_has_a_verdict_on_base_and_plus(sandbox: Sandbox) -> None:
    check = evalplus("def f(x):\n    x.append(0)\n    return sum(x) / 2", [[[1, 2]]], [[[3]], [[10]]])
    assert judge(check, "def f(x): return 0.5 * sum(x)", sandbox).plus is True
    verdict = judge(check, "def f(x): return sum(x) / 2 if sum(x) < 10 else 0", sandbox)
    assert (verdict.status, verdict.base, verdict.plus) == ("failed", True, False)
    assert verdict.detail == "f([10]) is 0, not 5.0"
    verdict = judge(check, "def f(x): return 0", sandbox)
    assert (verdict.base, verdict.plus, verdict.detail) == (False, False, "f([1, 2]) is 0, not 1.5")
    verdict = judge(check, "def f(x):\n  if x == [10]: raise KeyError('k')\n  return sum(x) / 2", sandbox)
    assert (verdict.status, verdict.base, verdict.plus) == ("error", True, False)
    assert "KeyError" in verdict.detail and "f([10])" in verdict.detail
    verdict = judge(check, "import os\ndef f(x):\n  if x == [10]: os._exit(0)\n  return sum(x) / 2", sandbox)
    assert (verdict.status, verdict.plus) == ("exited", False)


def test_arguments_are_fresh_for_every_call_and_the_reference(sandbox: Sandbox) -> None:
    check = evalplus("def f(x):\n    return len(x)", [[[1, 2]]] * 3, [[[1, 2]]])
    assert judge(check, "def f(x):\n  n = len(x)\n  x.clear()\n  return n", sandbox).passed


def test_the_references_outputs_are_computed_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_expected", relaying.ExpectedOutputs())
    reference = "import os\ndef f(x):\n    return os.getpid()"
    check = evalplus(reference, [[1]], [])
    assert judge(check, "def f(x): return 1", sandbox).status == "failed"
    first = judge(check, "def f(x): return 1", sandbox).detail
    assert judge(check, "def f(x): return 1", sandbox).detail == first  # another process, the same output


def test_many_inputs_go_in_batches_and_the_first_wrong_one_is_named(sandbox: Sandbox) -> None:
    check = evalplus("def f(x):\n    return x", [[number] for number in range(1500)], [])
    assert judge(check, "def f(x): return x", sandbox).passed
    assert judge(check, "def f(x): return x - (x == 1234)", sandbox).detail == "f(1234) is 1233, not 1234"
    large = evalplus("def f(x):\n    return [x] * 400_000", [[number] for number in range(12)], [])
    assert judge(large, "def f(x): return [x] * 400_000", sandbox).passed


def test_an_input_that_cannot_be_sent_is_an_error_of_the_file(sandbox: Sandbox) -> None:
    with pytest.raises(CorpusError, match="HumanEval/0"):
        judge(evalplus("def f(x): pass", [[object()]], []), "def f(x): pass", sandbox)


SLEEPER = "import time\ndef add(a, b): time.sleep(60)"


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each judgement that starts, and with each exclusive turn."""
    found: list[str] = []
    relaying._judges.close()  # another test may have killed one while it waited, which costs a further judgement
    once, alone = relaying._judge_once, Turns.alone

    def counted(*given: object, **named: object) -> object:
        found.append("judged")
        return once(*given, **named)  # type: ignore[arg-type]

    def counted_turn(turns: Turns) -> AbstractContextManager[None]:
        found.append("alone")
        return alone(turns)

    monkeypatch.setattr(relaying, "_judge_once", counted)
    monkeypatch.setattr(Turns, "alone", counted_turn)
    return found


def test_a_time_out_is_certain_where_the_machine_tells_the_load(sandbox: Sandbox, tries: list[str]) -> None:
    programs = [
        SLEEPER,
        "def add(a, b):\n  while True: pass",
        "import time\ntime.sleep(60)",
        "import os, time\nos.fork() or time.sleep(60)\n" + SLEEPER,
    ]
    assert {judge(ADD, program, sandbox, seconds=0.4).status for program in programs} == {"timeout"}
    assert tries == ["judged"] * len(programs)


def test_eight_sleepers_are_judged_once_each_beside_a_right_program(sandbox: Sandbox, tries: list[str]) -> None:
    with ThreadPoolExecutor(9) as pool:
        sleepers = [pool.submit(judge, ADD, SLEEPER, sandbox, seconds=3) for _ in range(8)]
        right = pool.submit(judge, ADD, RIGHT, sandbox, seconds=60)
        assert right.result().passed
        assert not any(one.done() for one in sleepers), "it did not wait for them"
        assert {one.result().status for one in sleepers} == {"timeout"}
    assert tries == ["judged"] * 9


def test_a_time_out_is_retried_alone_where_the_machine_does_not_tell(
    sandbox: Sandbox, tries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Load, "known", False)
    assert judge(ADD, SLEEPER, sandbox, seconds=0.4).status == "timeout"
    assert tries == ["judged", "alone", "judged"]


def test_a_program_that_gets_little_of_a_core_passes(sandbox: Sandbox, tries: list[str]) -> None:
    # Others use up the processors; the program's own time is far below the limit, its wall time is above.
    busy = "def add(a, b):\n  end = time.thread_time() + {cpu}\n  while time.thread_time() < end: pass\n  return a + b"
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as others:
        for _ in range(3 * len(cores)):
            others.enter_context(spinning())
        verdict = judge(ADD, "import time\n" + busy.format(cpu=0.15), sandbox, seconds=1)
    assert verdict.passed and tries == ["judged"], verdict


@contextmanager
def spinning() -> Iterator[None]:
    """A process that uses a processor all the time."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_one_alone_waits_for_the_others_and_they_for_it() -> None:
    turns, inside, seen = Turns(), threading.Semaphore(0), []
    running = 0
    lock = threading.Lock()

    def work(alone: bool) -> None:
        nonlocal running
        with turns.alone() if alone else turns.shared():
            with lock:
                running += 1
                seen.append((alone, running))
            inside.acquire(timeout=0.01)
            with lock:
                running -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [False, False, True] * 8))
    assert len(seen) == 24
    assert all(count == 1 for alone, count in seen if alone)


def test_threads_get_the_same_verdicts(sandbox: Sandbox) -> None:
    programs = [RIGHT, "def add(a, b): return a", "add = None", "import os\nos._exit(0)"] * 3
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda program: judge(ADD, program, sandbox).status, programs))
    assert verdicts == ["passed", "failed", "error", "exited"] * 3


def test_a_judge_that_was_ended_while_it_waited_is_replaced(sandbox: Sandbox) -> None:
    assert judge(ADD, RIGHT, sandbox).passed
    server = LAUNCHER._server
    assert server is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
    assert children, "a judge waits, with its monitor"
    for monitor in children:
        os.kill(int(monitor), signal.SIGKILL)
    assert judge(ADD, RIGHT, sandbox).passed
    assert judge(ADD, "def add(a, b): return a - b", sandbox).status == "failed"


BUSY_TREES = {
    "children that spin": (
        "import os, time\ndef add(a, b):\n  for _ in range(12):\n    if os.fork() == 0:\n      while True: pass\n"
        "  time.sleep(60)"
    ),
    "children that spin and end": (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\ndef add(a, b):\n  while True:\n"
        "    if os.fork() == 0:\n      end = time.time() + 0.05\n      while time.time() < end: pass\n"
        "      os._exit(0)\n    time.sleep(0.01)"
    ),
    "half busy": (
        "import time\ndef add(a, b):\n  while True:\n    end = time.time() + 0.02\n    while time.time() < end: pass\n"
        "    time.sleep(0.03)"
    ),
    "threads that wake up": (
        "import threading, time\ndef wake():\n  while True: time.sleep(0.0001)\ndef add(a, b):\n"
        "  for _ in range(12): threading.Thread(target=wake, daemon=True).start()\n  time.sleep(60)"
    ),
    "stopped": "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGSTOP)",
    "does not read": (
        "import sys, time\nserver = sys.modules['donod_fast.evaluation.judging.program_side']\n"
        "def add(a, b):\n  server.wire.receive = lambda d: time.sleep(60)\n  return a + b"
    ),
}


@pytest.mark.attack
def test_no_program_makes_its_own_time_out_doubtful(walls: Sandbox, tries: list[str], attacks: Attacks) -> None:
    check = human_eval("assert candidate(1, 2) == 3\nassert candidate(b'x' * 2_000_000, b'') != b''", name="add")
    through = {}
    tried = list(BUSY_TREES.items())[:: 1 if attacks.full else 3]
    for name, program in tried:
        tries.clear()
        verdict = judge(check, program, walls, seconds=1)
        if verdict.status != "timeout" or tries != ["judged"]:
            through[name] = (verdict, list(tries))
    attacks.count("judge", "time-outs that cost a second judgement", tried=len(tried), got_through=len(through))
    assert not through
