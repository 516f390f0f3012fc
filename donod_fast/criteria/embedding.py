"""Question embeddings from the scorer's own hidden states: their mean over the instruction's tokens, as a unit vector.

The last hidden states (after the final norm) of the tokens before the first scored one are averaged and scaled to unit
length. Under causal attention they do not see the answer, so the vector embeds only the question, as K-Means + IFD
(arXiv 2504.12687) requires. In a conversation it embeds all turns before the first scored one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.criteria.base import BatchView, Bound, Column, Context, Criterion, Need, RowView, Value


@dataclass(frozen=True)
class QuestionEmbedding(Criterion):
    """Question embedding; see the module's docstring.

    Attributes:
        size: d of the model; set by :meth:`bind`.
    """

    size: int = 0

    name = "embedding"
    needs = frozenset({Need.ALL_STATES})

    @property
    def columns(self) -> tuple[Column, ...]:
        """One vector column."""
        return (Column("embedding", "mean hidden state of the question, of length 1", kind="vector", size=self.size),)

    def bind(self, context: Context) -> Bound:
        """Read d from the model."""
        return QuestionEmbedding(context.trunk.dim)

    def width(self) -> int:
        """Number of entries of the vector."""
        return self.size

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, d) unit vectors; NaN if no token precedes the answer."""
        assert view.states is not None
        rows = []
        for sample, first in zip(view.samples, view.first_slots, strict=True):
            question = view.states[first : first + sample.scored.index(True)]
            rows.append(question.double().mean(0))
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    def of_row(self, row: RowView) -> Sequence[Value]:
        """The vector; None if the question has no token."""
        return (None if bool(row.numbers.isnan().any()) else row.numbers,)


__all__ = ["QuestionEmbedding"]
