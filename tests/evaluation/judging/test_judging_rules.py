"""EvalPlus's rules, compared with NumPy's ``allclose`` and with outputs computed by hand."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from donod_fast.evaluation.judging.evalplus_rules import (
    NOT_NONE,
    SAME_SET,
    Comparison,
    close,
    padded_digit_distance,
    polynomial,
    upright_surface,
)


def right(
    output: Any, expected: Any, *, atol: float = 0.0, name: str = "f", rules: str = "mbpp", given: Any = ()
) -> bool:
    return Comparison(rules, name, atol).right(given, output, expected)


def numpy_close(output: Any, expected: Any, atol: float) -> bool:
    try:
        return bool(np.allclose(output, expected, rtol=1e-7, atol=atol))
    except (TypeError, ValueError):
        return False


SPECIAL = [0.0, -0.0, 1.0, 1 + 1e-7, 1 + 1.1e-6, math.inf, -math.inf, math.nan, 1e300, 3, True, False, 2**63, 2**64, 1j]
SPECIAL += ["a", None, 1 + 1e-8, 10**10, 10**10 + 1, 10**10 + 10**4]


def test_closeness_is_that_of_numpy() -> None:
    for output in SPECIAL:
        for expected in SPECIAL:
            for atol in (1e-6, 1e-3):
                assert close(output, expected, atol) == numpy_close(output, expected, atol), (output, expected, atol)
    chance = random.Random(0)
    for _ in range(300):
        expected = [chance.uniform(-5, 5) for _ in range(chance.randint(0, 4))]
        output = [one + chance.choice([0, 5e-7, 2e-6]) for one in expected]
        assert close(output, expected, 1e-6) == numpy_close(output, expected, 1e-6)
        assert close([output, output], [expected] * 2, 1e-6) == numpy_close([output, output], [expected] * 2, 1e-6)


def test_equal_values_of_any_type_are_right_without_a_tolerance() -> None:
    assert right(1, True) and right(2.0, 2) and right([1, (2,)], [1, (2,)])
    assert not right([1], (1,)) and not right("a", "b") and not right(2, 3)


def test_floats_are_compared_by_tolerance_and_only_with_their_own_type() -> None:
    assert right(0.1 + 0.2, 0.3) and not right(0.3001, 0.3)
    assert right([0.1 + 0.2], [0.3]) and not right((0.1 + 0.2,), [0.3]) and not right([0.3, 0.3], [0.3])
    assert right(3, 3.0)  # equal, so never asked its type
    assert not right(3, 3.0000001)  # an int is no float
    assert not right({"a": 0.1 + 0.2}, {"a": 0.3})  # no tolerance within other containers


def test_a_float_output_enables_the_tolerance_for_later_inputs() -> None:
    comparison = Comparison("humaneval", "f", 0.0)
    assert not comparison.right((), 10**10 + 1, 10**10)
    assert comparison.right((), 0.5, 0.5)
    assert comparison.right((), 10**10 + 1, 10**10)


def test_a_tasks_own_tolerance_counts() -> None:
    assert right(1.004, 1.0, atol=0.01) and not right(1.02, 1.0, atol=0.01)


def test_a_root_is_right_by_the_value_of_the_polynomial() -> None:
    coefficients = [-6.0, 11.0, -6.0, 1.0]  # (x-1)(x-2)(x-3)
    for root, wanted in ((1.0, True), (2.0, True), (3.0, True), (2.5, False)):
        assert right(root, 1.0, atol=1e-4, name="find_zero", rules="humaneval", given=(coefficients,)) is wanted
    assert polynomial([1, 2, 3], 2.0) == 17.0


@pytest.mark.parametrize("name", sorted(SAME_SET))
def test_tasks_whose_order_is_free_compare_sets(name: str) -> None:
    assert right((3, 1, 1), (1, 3), name=name) and not right((1,), (1, 3), name=name)
    assert not right((3, 1), (1, 3), name=name, rules="humaneval")


@pytest.mark.parametrize("name", sorted(NOT_NONE))
def test_tasks_with_match_objects_compare_whether_there_is_one(name: str) -> None:
    assert right(object(), object(), name=name) and right(None, None, name=name) and right(True, "x", name=name)
    assert (
        not right(None, object(), name=name) and not right(object(), None, name=name) and not right(False, 1, name=name)
    )


def test_tasks_with_several_readings_accept_each() -> None:
    assert right("anything", False, name="are_equivalent")
    assert right(0, 7, name="sum_div") and not right(1, 7, name="sum_div")
    assert padded_digit_distance(123, 4567) == 4 + 4 + 4 + 4
    assert right(16, 3, name="digit_distance_nums", given=(123, 4567))
    assert upright_surface(6, 4) == 96  # slant 5, base 36, sides 60
    assert right(96, 84, name="surface_Area", given=(6, 4)) and not right(95, 84, name="surface_Area", given=(6, 4))
