"""EvalPlus's comparison of outputs (evalplus/eval/__init__.py and _special_oracle.py; Liu et al., arXiv 2305.01210).

Its rules, without NumPy: test equality first; once the reference's output is a float, or a list or tuple of floats,
use an absolute tolerance of 1e-6 (for the rest of the same set of inputs); with a tolerance, unequal values must have
the same type and be close as defined by ``numpy.allclose``; some tasks have their own oracle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

FLOAT_TOLERANCE = 1e-6
RELATIVE_TOLERANCE = 1e-7

NOT_NONE = frozenset({"check_str", "text_match_three", "text_starta_endb"})
"""MBPP+ functions for which only ``output is None`` is compared (their outputs are match objects)."""
SAME_SET = frozenset(
    {
        "similar_elements",
        "find_char_long",
        "common_in_nested_lists",
        "extract_singly",
        "larg_nnum",
        "intersection_array",
        "find_dissimilar",
        "Diff",
    }
)
"""MBPP+ functions whose outputs are compared as sets."""


class Comparison:
    """The comparisons of one set of inputs, which share the tolerance.

    Args:
        rules: ``"humaneval"`` or ``"mbpp"``: the benchmark whose special cases apply.
        entry_point: the task's function; special cases are selected by its name.
        atol: the task's absolute tolerance.
    """

    def __init__(self, rules: str, entry_point: str, atol: float) -> None:
        self._mbpp = rules == "mbpp"
        self._name = entry_point
        self._root = rules == "humaneval" and entry_point == "find_zero"
        self._atol = atol

    @property
    def by_equality(self) -> bool:
        """Whether an output that equals the reference's is right, whatever both are."""
        return not self._root and not (self._mbpp and self._name in SAME_SET | NOT_NONE)

    def equal(self, floats: bool) -> None:
        """Take note of an output that is right because it equals the reference's, which ``floats`` describes."""
        if self._atol == 0 and floats:
            self._atol = FLOAT_TOLERANCE

    def right(self, arguments: Any, output: Any, expected: Any) -> bool:
        """Whether an output counts as right. An exception of the comparison is passed on and counts as wrong."""
        if self._root:
            return abs(polynomial(arguments[0], output)) <= self._atol
        exact = self._exact(arguments, output, expected)
        self.equal(all_floats(expected))
        if exact or self._atol == 0:
            return exact
        if type(output) is not type(expected):
            return False
        if isinstance(expected, (list, tuple)) and len(output) != len(expected):
            return False
        return close(output, expected, self._atol)

    def _exact(self, arguments: Any, output: Any, expected: Any) -> bool:
        if self._mbpp and self._name in SAME_SET:
            return set(output) == set(expected)
        if self._mbpp and self._name in NOT_NONE:
            wanted = expected is not None
            return output == wanted if isinstance(output, bool) else wanted == (output is not None)
        exact = bool(output == expected)
        if exact or not self._mbpp:
            return exact
        if self._name == "are_equivalent":  # Mbpp/164: the task's text is ambiguous
            return True
        if self._name == "sum_div":  # Mbpp/295
            return bool(output == 0)
        if self._name == "surface_Area":  # Mbpp/581: the height may be the vertical height
            return bool(abs(output - upright_surface(*arguments)) <= self._atol)
        if self._name == "digit_distance_nums":  # Mbpp/558: numbers of unequal length
            return bool(output == padded_digit_distance(*arguments))
        return False


def close(output: Any, expected: Any, atol: float) -> bool:
    """``numpy.allclose(output, expected, rtol=1e-7, atol=atol)`` of numbers, or lists and tuples of one shape."""
    if isinstance(output, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(output) != len(expected):
            return False
        return all(close(one, other, atol) for one, other in zip(output, expected, strict=True))
    if not (_number(output) and _number(expected)):
        return False
    try:
        left, right = complex(output), complex(expected)
        size = abs(right)
        if not (math.isfinite(abs(left)) and math.isfinite(size)):
            return left == right
        return abs(left - right) <= atol + RELATIVE_TOLERANCE * size
    except OverflowError:  # too large for NumPy as well
        return False


def polynomial(coefficients: Iterable[float], at: float) -> float:
    """HumanEval/32: sum of c_i·x^i, of which ``find_zero`` must find a root."""
    return sum(factor * math.pow(at, power) for power, factor in enumerate(coefficients))


def upright_surface(edge: float, height: float) -> int:
    """Mbpp/581: surface of a square pyramid whose height is that of its apex above the base, rounded."""
    slant = math.hypot(edge / 2, height)
    return round(edge**2 + 2 * edge * slant)


def padded_digit_distance(first: int, second: int) -> int:
    """Mbpp/558: sum of the differences of digits, the shorter number padded with zeros on the left."""
    left, right = str(first), str(second)
    width = max(len(left), len(right))
    return sum(abs(int(one) - int(other)) for one, other in zip(left.zfill(width), right.zfill(width), strict=True))


def all_floats(value: Any) -> bool:
    """Whether a value is a float, or a list or tuple of floats that is not empty."""
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(one, float) for one in value)
    return isinstance(value, float)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, complex))
