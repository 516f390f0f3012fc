"""One drawn question with its right answer, and the type of a function that draws it.

A family is such a function. Its answers are right by construction, and several wordings a family
give the model language to learn and not one string.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple


class Draft(NamedTuple):
    """One question and its right answer; ``input`` is empty where the instruction says it all."""

    instruction: str
    input: str
    output: str


Family = Callable[[Random], Draft]
