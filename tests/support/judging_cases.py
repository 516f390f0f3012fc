"""A small problem with hidden tests, and short checks."""

from __future__ import annotations

from typing import Any

from donod_fast.evaluation.judging import Check

MARKER = "hidden-" + "0f1e2d3c4b5a"
"""Stands in the tests and in no program."""

PROMPT = '''def add(a, b):
    """Return the sum of two numbers."""
'''
RIGHT = f"{PROMPT}    return a + b\n"
TEST = f'''
SECRET = "{MARKER}"

def check(candidate):
    assert candidate(2, 3) == 5, SECRET
    assert candidate(40, 2) == 42
    assert candidate(-7, 7) == 0
    assert candidate("{MARKER[:3]}", "x") == "{MARKER[:3]}x"
'''

ADD = Check(kind="human-eval", task_id="test/add", entry_point="add", prompt=PROMPT, test=TEST)


def human_eval(body: str, *, name: str = "f", prompt: str = "") -> Check:
    """A check of HumanEval's kind whose ``check(candidate)`` has these lines."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return Check(
        kind="human-eval",
        task_id="test/0",
        entry_point=name,
        prompt=prompt or f"def {name}(*given):\n",
        test=f"def check(candidate):\n{lines}\n",
    )


def mbpp(*tests: str, name: str = "f", setup: str = "") -> Check:
    """A check of MBPP's kind."""
    return Check(kind="mbpp", task_id="1", entry_point=name, setup=setup, test_list=tests)


def evalplus(reference: str, base: list[Any], plus: list[Any], **more: Any) -> Check:
    """A check of EvalPlus's kind; the function is ``f`` unless named otherwise."""
    given = {"entry_point": "f", "rules": "humaneval", **more}
    return Check(
        kind="evalplus",
        task_id="HumanEval/0",
        reference=reference,
        base_inputs=tuple(base),
        plus_inputs=tuple(plus),
        **given,
    )
