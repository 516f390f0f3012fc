"""What a criterion is: a name, what it needs of the forward pass, and the columns that it adds to a row of scores.

A criterion is a small value that can be pickled: its settings. :meth:`Criterion.bind` turns it into something that
computes, once the model is loaded. DON, NOD, loss and entropy are no criteria in this sense: every row has them.

What is computed where:

- :meth:`Bound.of_batch` on the device, for the rows of a batch at once, from what :class:`BatchView` holds;
- :meth:`Bound.of_row` on the host, for one row, when all its samples have been run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from donod_fast.data.types import TokenizedSample
from donod_fast.scores.columns import NAN, Column, Value

if TYPE_CHECKING:
    from donod_fast.data.masking import Masker
    from donod_fast.models.head import Head
    from donod_fast.models.trunk import Trunk


class Need(StrEnum):
    """What a criterion needs beyond the base columns of a row."""

    ERROR_NORM = "error_norm"  # token statistics: mean ‖p − onehot(y)‖ of the scored tokens
    GRADIENT_NORM = "gradient_norm"  # ‖G‖ of the output layer
    SCORED_STATES = "scored_states"  # hidden states where a token is scored
    ALL_STATES = "all_states"  # hidden states of every token that is run
    SECOND_PASS = "second_pass"  # further samples, run in the same batches
    REFERENCE = "reference"  # a reference set, read when the model is loaded


FORWARD = frozenset({Need.ERROR_NORM, Need.GRADIENT_NORM, Need.SCORED_STATES, Need.ALL_STATES})
"""Needs for which the row itself must be run; without one of them a scored folder is added to without that."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """The loaded model and the settings of a run, as a criterion sees them when it is bound.

    Attributes:
        trunk: the decoder without its output layer.
        head: the proved output layer.
        masker: turns records into masked tokens, as for the rows that are scored.
        tokenizer: of the model.
        weight_norm: ‖W‖_F of the output layer.
        reduction: ``mean`` or ``sum`` of a sample's token losses.
        token_budget: slots of a batch, padding included.
    """

    trunk: Trunk
    head: Head
    masker: Masker
    tokenizer: Any
    weight_norm: float
    reduction: str
    token_budget: int


@dataclass(frozen=True, slots=True, eq=False)
class BatchView:
    """The rows of a batch, as a criterion sees them: n samples with M scored tokens in all.

    Attributes:
        samples: the n rows.
        hidden: (M, d) hidden states that predict the scored tokens, sample by sample, on the head's device.
        labels: (M,) int64 the tokens to predict, there too.
        cu_seqlens: (n + 1,) int32 bounds of the samples, on the host.
        head: the output layer.
        reduction: ``mean`` or ``sum``, of the loss.
        workspace_bytes: what a computation may hold at once.
        error_norm: (n,) float64 where a criterion needs it.
        gradient_norm: (n,) float64 where a criterion needs it.
        states: of all tokens that are run, (slots, d) on the trunk's device, where a criterion needs them.
        first_slots: by sample the slot of its first token in ``states``.
    """

    samples: Sequence[TokenizedSample]
    hidden: Tensor
    labels: Tensor
    cu_seqlens: Tensor
    head: Head
    reduction: str
    workspace_bytes: int
    error_norm: Tensor | None = None
    gradient_norm: Tensor | None = None
    states: Tensor | None = None
    first_slots: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class RowView:
    """A row whose samples have all been run.

    Attributes:
        sample: its tokens.
        loss: cross entropy in nats over its scored tokens, reduced as ``reduction`` says.
        reduction: ``mean`` or ``sum``.
        numbers: what :meth:`Bound.of_batch` gave, (width,) float64; empty where it gives nothing.
        second: per sample of the second pass the sum of its token losses in nats (NaN where it did not fit in memory)
            and their number.
    """

    sample: TokenizedSample
    loss: float
    reduction: str
    numbers: Tensor
    second: Sequence[tuple[float, int]]

    @property
    def mean_loss(self) -> float:
        """Nats per scored token."""
        return self.loss if self.reduction == "mean" else self.loss / self.sample.scored_tokens


class Bound(Protocol):
    """A criterion beside a loaded model."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it yields."""

    def width(self) -> int:
        """How many numbers :meth:`of_batch` gives for a row."""

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, width) numbers on any device; rows depend neither on each other nor on the batch."""

    def second_pass(self, sample: TokenizedSample) -> Sequence[TokenizedSample]:
        """Samples to be run beside the row's own."""

    def of_row(self, row: RowView) -> Sequence[Value]:
        """A value for each column."""


class Criterion:
    """Base of the criteria: override what is needed. Where nothing is bound, it is its own :class:`Bound`."""

    name: str = ""
    needs: frozenset[Need] = frozenset()

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it yields; sizes of vectors may be known to the bound form only."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What decides its numbers beyond the folder's own settings, in JSON types."""
        return {}

    def bind(self, context: Context) -> Bound:
        """Bind the criterion to a loaded model. Raises CorpusError or InputError if a reference set is unusable."""
        return self

    def width(self) -> int:
        """See :class:`Bound`."""
        return 0

    def of_batch(self, view: BatchView) -> Tensor:
        """See :class:`Bound`."""
        return torch.empty((len(view.samples), 0), dtype=torch.float64)

    def second_pass(self, sample: TokenizedSample) -> Sequence[TokenizedSample]:
        """See :class:`Bound`."""
        return ()

    def of_row(self, row: RowView) -> Sequence[Value]:
        """See :class:`Bound`; as it stands a number for each column."""
        return row.numbers.tolist()


def fingerprint(criterion: Criterion) -> str:
    """Hash of a criterion's settings: columns with another one are not the same columns."""
    content = json.dumps([criterion.name, criterion.settings()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


__all__ = [
    "FORWARD",
    "NAN",
    "BatchView",
    "Bound",
    "Column",
    "Context",
    "Criterion",
    "Need",
    "RowView",
    "Value",
    "fingerprint",
]
