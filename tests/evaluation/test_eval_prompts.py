"""Exact prompts, cuts at stop strings, and extraction of the program from an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from eval_cases import human_eval_record, mbpp_record, write_records

from donod_fast.errors import InputError
from donod_fast.evaluation import Problem, load_problems
from donod_fast.evaluation.prompts import (
    STOPS,
    choose_style,
    code_block,
    cut_at_stop,
    find_shots,
    make_program,
    make_prompt,
)

THREE_SHOT = """\
You are an expert Python programmer, and here is your task: \
Write a function to add 2. Your code should pass these tests:

assert add_2(1) == 3
assert add_2(2) == 4
[BEGIN]
def add_2(x):
  return x + 2
[DONE]

You are an expert Python programmer, and here is your task: \
Write a function to add 3. Your code should pass these tests:

assert add_3(1) == 4
assert add_3(2) == 5
[BEGIN]
def add_3(x):
  return x + 3
[DONE]

You are an expert Python programmer, and here is your task: \
Write a function to add 4. Your code should pass these tests:

assert add_4(1) == 5
assert add_4(2) == 6
[BEGIN]
def add_4(x):
  return x + 4
[DONE]

You are an expert Python programmer, and here is your task: \
Write a function to add 11. Your code should pass these tests:

assert add_11(1) == 12
assert add_11(2) == 13
[BEGIN]
"""

ZERO_SHOT = '''\
"""
Write a function to add 11.
assert add_11(1) == 12
"""
'''


@pytest.fixture
def mbpp(tmp_path: Path) -> list[Problem]:
    return load_problems("mbpp", write_records(tmp_path / "m.jsonl", [mbpp_record(at) for at in (2, 3, 4, 11)]))


@pytest.fixture
def human_eval(tmp_path: Path) -> Problem:
    record = human_eval_record(1)
    record["prompt"] = "from typing import List\n\ndef helper():\n    return 1\n\n\n" + record["prompt"]
    return load_problems("humaneval", write_records(tmp_path / "h.jsonl", [record]))[0]


def test_the_three_shot_prompt_is_the_papers(mbpp: list[Problem]) -> None:
    assert make_prompt(mbpp[-1], "3-shot", find_shots(mbpp)).text == THREE_SHOT


def test_the_zero_shot_prompt_is_a_docstring_with_one_test(mbpp: list[Problem]) -> None:
    assert make_prompt(mbpp[-1], "0-shot").text == ZERO_SHOT


def test_a_completion_continues_human_evals_prompt_as_it_is(human_eval: Problem) -> None:
    assert make_prompt(human_eval, "completion").text == human_eval.prompt
    assert make_program(human_eval, "completion", "    return x + 1") == human_eval.prompt + "    return x + 1"


def test_the_chat_prompt_holds_the_function_in_a_fence(human_eval: Problem) -> None:
    prompt = make_prompt(human_eval, "chat")
    assert prompt.chat and f"```python\n{human_eval.prompt.strip()}\n```" in prompt.text


def test_shots_that_are_not_there_are_named(mbpp: list[Problem]) -> None:
    with pytest.raises(InputError, match="lacks 3, 4; use the whole file"):
        find_shots([mbpp[0], mbpp[3]])


def test_styles_belong_to_benchmarks() -> None:
    assert [choose_style(name, None) for name in ("humaneval", "mbpp+")] == ["completion", "3-shot"]
    with pytest.raises(InputError, match="its styles are completion, chat"):
        choose_style("humaneval", "3-shot")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return 1\n\ndef other():\n    pass", "    return 1\n"),
        ("    return 1\nclass A: pass\ndef f(): 1", "    return 1"),
        ("    return 1\n# note", "    return 1"),
        ("    x = 1  # note\n    if x:\n        print(x)\n", "    x = 1  # note\n    if x:\n        print(x)\n"),
        ("    return 1\n```\nThis function", "    return 1\n"),
        ("    return 1", "    return 1"),
        ("", ""),
    ],
)
def test_a_completion_is_cut_at_the_first_stop_and_nowhere_else(text: str, kept: str) -> None:
    assert cut_at_stop(text, STOPS["completion"]) == kept


def test_the_earliest_stop_counts_not_the_first_listed() -> None:
    assert cut_at_stop("a\nassert b\nclass c", STOPS["completion"]) == "a"


def test_the_first_block_that_defines_the_entry_point_counts(human_eval: Problem) -> None:
    answer = (
        "Like this:\n```\npip install x\n```\nand\n```python\ndef add_1(x):\n    return x + 1\n```\nor\n"
        "```python\ndef add_1(x):\n    return 0\n```\n"
    )
    assert code_block(answer, "add_1") == "def add_1(x):\n    return x + 1\n"
    program = make_program(human_eval, "chat", answer)
    assert program.endswith("def add_1(x):\n    return x + 1\n")
    scope: dict[str, object] = {}
    exec(program, scope)
    assert scope["add_1"](1) == 2 and "List" in scope and "helper" in scope  # type: ignore[operator]


def test_an_answer_cut_short_inside_its_block_is_still_code() -> None:
    assert code_block("Sure:\n```python\ndef add_1(x):\n    return x", "add_1") == "def add_1(x):\n    return x"


def test_a_block_with_only_the_body_completes_the_prompt(human_eval: Problem) -> None:
    program = make_program(human_eval, "chat", "```\n    return x + 1\n```")
    assert program == human_eval.prompt + "    return x + 1\n"


def test_an_answer_without_a_fence_is_taken_whole(human_eval: Problem) -> None:
    answer = "def add_1(x):\n    return x + 1"
    assert make_program(human_eval, "chat", answer).endswith(answer)


def test_mbpps_text_is_the_program(mbpp: list[Problem]) -> None:
    assert make_program(mbpp[-1], "3-shot", "def add_11(x): return 1") == "def add_11(x): return 1"
