"""Length of the answer in characters: a plain baseline, like the columns ``tokens`` and ``scored_tokens``.

The characters of the scored tokens, without special tokens and within the length limit. Neither end is better: name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.criteria.base import Bound, Column, Context, Criterion, RowView, Value
from donod_fast.criteria.texts import answer_text


@dataclass(frozen=True)
class AnswerLength(Criterion):
    """Number of characters of the answer; see the module's docstring.

    Attributes:
        tokenizer: of the model; set by :meth:`bind`.
    """

    tokenizer: Any = None

    name = "length"

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column."""
        return (Column("length", "characters of the answer, of its scored tokens"),)

    def bind(self, context: Context) -> Bound:
        """Take the tokenizer."""
        return AnswerLength(context.tokenizer)

    def of_row(self, row: RowView) -> Sequence[Value]:
        """Needs no forward pass."""
        return (float(len(answer_text(self.tokenizer, row.sample))),)


__all__ = ["AnswerLength"]
