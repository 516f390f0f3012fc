"""Records of each benchmark become checks."""

from __future__ import annotations

from typing import Any

import pytest

from donod_fast.evaluation.judging import evalplus_check, human_eval_check, mbpp_check
from donod_fast.evaluation.judging.free_names import free_names
from donod_fast.evaluation.judging.records import mbpp_entry_point, mbpp_plus_inputs


@pytest.mark.parametrize(
    ("number", "given", "taken"),
    [
        (2, [[1, 2], [3]], [(1, 2), (3,)]),
        (63, [[[1, 2], [3, 4]]], [[(1, 2), (3, 4)]]),
        (75, [[[1, 2], [3, 4]], 5], [[(1, 2), (3, 4)], 5]),
        (106, [[1, 2], [3, 4]], [[1, 2], (3, 4)]),
        (115, [[[1], [], {"a": 1}]], [[{1}, {}, {}]]),
        (124, ["0", "1j"], [0.0, 1j]),
        (250, [[1, 2], 2], [(1, 2), 2]),
        (259, [[[1, 3], [4, 5]], [[6, 7], [3, 9]]], [((1, 3), (4, 5)), ((6, 7), (3, 9))]),
        (278, [[1, [2, 3], "a"]], [(1, (2, 3), "a")]),
        (307, [["HELLO", []], 1, 50], [("HELLO", []), 1, 50]),
        (722, [{"a": [1, 2]}, 6.0, 70], [{"a": (1, 2)}, 6.0, 70]),
        (252, ["(1+2j)"], [1 + 2j]),
        (580, [[1, [2, [3]]]], ((1, (2, (3,))),)),
        (3, [[1, 2]], [[1, 2]]),
    ],
)
def test_inputs_of_mbpp_plus_become_what_the_functions_take(number: int, given: list[Any], taken: Any) -> None:
    (result,) = mbpp_plus_inputs(f"Mbpp/{number}", [given])
    assert result == taken and repr(result) == repr(taken)


def test_the_entry_point_of_mbpp_is_what_the_canonical_solution_defines() -> None:
    assert mbpp_entry_point(["assert set(f([1])) == {1}"], "def g(): pass\ndef f(x): return x") == "f"
    assert mbpp_entry_point(["assert sum(10, 15) == 6"], "def sum(a, b): return 6") == "sum"
    assert mbpp_entry_point(["assert True"], "x = 1") == ""


def test_each_benchmarks_record_gives_its_check() -> None:
    record = {"task_id": "t/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(c): pass"}
    assert human_eval_check(record).kind == "human-eval"
    record = {
        "task_id": 5,
        "code": "def f(): pass",
        "test_list": ["assert f()"],
        "challenge_test_list": ["assert f(1)"],
    }
    assert mbpp_check(record).test_list == ("assert f()",)
    assert mbpp_check(record, challenge=True).test_list == ("assert f()", "assert f(1)")
    assert mbpp_check({**record, "test_imports": ["import math"]}).setup.strip() == "import math"
    assert mbpp_check({**record, "test_setup_code": "x = f()"}).setup.strip() == "x = f()"
    record = {
        "prompt": "P",
        "canonical_solution": "C",
        "entry_point": "f",
        "base_input": [[1]],
        "plus_input": {},
        "atol": 0,
    }
    check = evalplus_check({**record, "task_id": "Mbpp/3"})
    assert (check.rules, check.reference, check.base_inputs, check.plus_inputs) == ("mbpp", "PC", ([1],), ())
    assert evalplus_check({**record, "task_id": "HumanEval/3"}).rules == "humaneval"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("assert f(1) == g", {"f", "g"}),
        ("import math\nx = 1\nassert math.pi and x and h()", {"h"}),
        ("def check(candidate):\n    y = 1\n    assert candidate(y) == helper(y)", {"helper"}),
        ("root = Node(1)\nroot.left = Node(2)", {"Node"}),
        ("class A:\n    def go(self): return later()\n[i for i in things]", {"later", "things"}),
        ("def check(c):\n    import random\n    assert [c(x) for x in range(random.randint(1, 2))]", {"range"}),
    ],
)
def test_the_names_that_tests_use_without_defining_them_are_found(source: str, names: set[str]) -> None:
    assert free_names(source) == names
