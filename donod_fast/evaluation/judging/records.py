"""Convert a benchmark's record (HumanEval, MBPP or EvalPlus) into a :class:`Check`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from donod_fast.evaluation.judging.check import Check

# The inputs of MBPP+ whose JSON types differ from the function's argument types: the task numbers of EvalPlus
# (evalplus/data/mbpp.py, v0.2.0 of the data). "each": every argument; "inner": every item of every argument.
_EACH_TUPLE = {
    2,
    116,
    132,
    143,
    222,
    261,
    273,
    394,
    399,
    421,
    424,
    429,
    470,
    560,
    579,
    596,
    616,
    630,
    726,
    740,
    744,
    809,
}
_INNER_TUPLES = {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}
_FIRST_INNER_TUPLES = {75, 413, 444, 753}
_SECOND_TUPLE = {106, 750}
_FIRST_TUPLE = {250, 307, 405, 446, 617, 720, 763, 808}
_EACH_TUPLE_OF_TUPLES = {259, 401, 445}
_ALL_TUPLES = {580, 615, 791}


def human_eval_check(record: Mapping[str, Any]) -> Check:
    """The check of a record in HumanEval's format: ``task_id``, ``prompt``, ``entry_point``, ``test``."""
    return Check(
        kind="human-eval",
        task_id=str(record["task_id"]),
        entry_point=record["entry_point"],
        prompt=record["prompt"],
        test=record["test"],
    )


def mbpp_check(record: Mapping[str, Any], *, challenge: bool = False) -> Check:
    """The check of a record of MBPP (``test_setup_code``) or sanitized MBPP (``test_imports``).

    Args:
        record: with ``task_id``, ``code``, ``test_list``.
        challenge: also run ``challenge_test_list``.
    """
    tests = [*record["test_list"], *(record.get("challenge_test_list") or () if challenge else ())]
    setup = "\n".join([*(record.get("test_imports") or ()), record.get("test_setup_code") or ""])
    return Check(
        kind="mbpp",
        task_id=str(record["task_id"]),
        entry_point=mbpp_entry_point(tests, record["code"]),
        setup=setup,
        test_list=tuple(tests),
    )


def mbpp_entry_point(tests: list[str], code: str) -> str:
    """The function under test: the first name in the tests that the canonical ``code`` defines (or "").

    MBPP has no such field. The canonical solution decides, so that ``set(…)`` in a test is the builtin, but the
    ``sum`` of task 126 is the program's.
    """
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    for test in tests:
        calls = [node for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
        names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
        for name in names:
            if name in defined:
                return name
    return ""


def evalplus_check(record: Mapping[str, Any]) -> Check:
    """The check of a record of HumanEval+ or MBPP+.

    It has ``prompt``, ``canonical_solution``, ``base_input``, ``plus_input`` and ``atol``. The task's name
    (``Mbpp/…``) decides which of the two it is; MBPP+'s inputs are converted to the argument types of its functions.
    """
    task_id = str(record["task_id"])
    mbpp = task_id.startswith("Mbpp/")
    base, plus = (_list(record[name]) for name in ("base_input", "plus_input"))
    if mbpp:
        base, plus = (mbpp_plus_inputs(task_id, inputs) for inputs in (base, plus))
    return Check(
        kind="evalplus",
        task_id=task_id,
        entry_point=record["entry_point"],
        prompt=record["prompt"],
        reference=record["prompt"] + record["canonical_solution"],
        base_inputs=tuple(base),
        plus_inputs=tuple(plus),
        atol=float(record["atol"]),
        rules="mbpp" if mbpp else "humaneval",
    )


def mbpp_plus_inputs(task_id: str, inputs: list[Any]) -> list[Any]:
    """MBPP+'s argument lists with the tuples, sets and complex numbers that JSON lacks, from EvalPlus's table."""
    change = _input_change(int(task_id.rpartition("/")[2]))
    return [change(arguments) for arguments in inputs] if change else inputs


def _input_change(number: int) -> Callable[[list[Any]], Any] | None:
    if number in _EACH_TUPLE:
        return lambda given: [tuple(one) for one in given]
    if number in _INNER_TUPLES:
        return lambda given: [_tuples(one) for one in given]
    if number in _FIRST_INNER_TUPLES:
        return lambda given: [_tuples(given[0]), given[1]]
    if number in _SECOND_TUPLE:
        return lambda given: [given[0], tuple(given[1])]
    if number in _FIRST_TUPLE:
        return lambda given: [tuple(given[0]), *given[1:]]
    if number in _EACH_TUPLE_OF_TUPLES:
        return lambda given: [tuple(_tuples(one)) for one in given]
    if number in _ALL_TUPLES:
        return _deep_tuple
    return _SINGLE_CHANGES.get(number)


def _tuples(items: list[Any]) -> list[Any]:
    return [tuple(item) for item in items]


def _deep_tuple(value: Any) -> Any:
    return tuple(_deep_tuple(item) for item in value) if isinstance(value, list) else value


def _list(value: Any) -> list[Any]:
    # The released file writes "no inputs" as {} in places.
    return list(value)


# In task 115 an empty list means an empty dict, and task 278 mixes tuples with plain items.
_SINGLE_CHANGES: dict[int, Callable[[list[Any]], Any]] = {
    115: lambda given: [[set(one) if isinstance(one, list) and one else {} for one in given[0]]],
    124: lambda given: [float(given[0]), complex(given[1])],
    252: lambda given: [complex(given[0])],
    278: lambda given: [tuple(tuple(one) if isinstance(one, list) else one for one in given[0])],
    722: lambda given: [{key: tuple(value) for key, value in given[0].items()}, *given[1:]],
}
