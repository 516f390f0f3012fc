"""How large the entries of the output layer's gradient are against AdamW's eps; measured on the first rows of a corpus.

AdamW's first step is G / (|G| + eps): where |g| is far above eps, every weight moves by the same amount, and NOD hardly
varies. Where |g| is of the size of eps, it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.system.wording import plural


@dataclass(frozen=True, slots=True)
class GradientSize:
    """Median of |g| / eps over some entries of G.

    Attributes:
        over_eps: the median, to three digits.
        rows: rows of the corpus whose gradients were looked at: the first that were scored.
        vocabulary: rows of the vocabulary that were looked at, drawn once with a fixed seed; all columns of each.
    """

    over_eps: float
    rows: int
    vocabulary: int

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> GradientSize:
        """Parse what ``dataclasses.asdict`` gives."""
        return GradientSize(float(content["over_eps"]), int(content["rows"]), int(content["vocabulary"]))

    def text(self) -> str:
        """``median |g| is 310 eps (first 8 rows, 256 tokens of the vocabulary)``."""
        return (
            f"median |g| is {self.over_eps:.3g} eps (first {plural(self.rows, 'scored row')}, "
            f"{plural(self.vocabulary, 'token')} of the vocabulary)"
        )


__all__ = ["GradientSize"]
