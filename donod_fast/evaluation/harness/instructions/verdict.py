"""Strict and loose verdicts on a response (Zhou et al., arXiv 2311.07911, §2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.evaluation.harness.instructions.checks import CHECKS


@dataclass(frozen=True, slots=True)
class Instruction:
    """One verifiable instruction.

    Attributes:
        kind: a name of :data:`.checks.CHECKS`.
        arguments: its arguments, validated by :func:`.arguments.checked_arguments`.
    """

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def is_followed(self, response: str) -> bool:
        """Whether a response follows it. A blank response follows none."""
        return bool(response.strip()) and CHECKS[self.kind](response, **self.arguments)


def loose_variants(response: str) -> list[str]:
    """The response, and seven texts made of it: without its first line, its last line or both, and without any ``*``.

    The loose verdict passes if one of them does: an opening such as "Sure, here it is:" and bold type do not count.
    """
    lines = response.split("\n")
    cut = ["\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1])]
    return [text for one in (response, *cut) for text in (one, one.replace("*", ""))]


def strict(instructions: Sequence[Instruction], response: str) -> list[bool]:
    """Whether the response follows each instruction."""
    return [one.is_followed(response) for one in instructions]


def loose(instructions: Sequence[Instruction], response: str) -> list[bool]:
    """Whether one of :func:`loose_variants` follows each instruction."""
    variants = loose_variants(response)
    return [any(map(one.is_followed, variants)) for one in instructions]


__all__ = ["Instruction", "loose", "loose_variants", "strict"]
