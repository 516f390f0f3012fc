"""Interface of a criterion: a name, what it needs from the forward pass, and the columns that it adds to the scores.

A criterion is a small object that can be pickled and holds only settings. Once the model is loaded,
:meth:`Criterion.bind` turns it into an object that computes. DON, NOD, loss and entropy are not criteria in this sense:
every row has them.

Computation happens in two places:

- :meth:`Bound.of_batch` on the device, for all rows of a batch at once, from a :class:`BatchView`;
- :meth:`Bound.of_row` on the host, for one row, after all its samples have been run.
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
    ALL_STATES = "all_states"  # hidden states of every token that the model processes
    SECOND_PASS = "second_pass"  # further samples, run in the same batches
    REFERENCE = "reference"  # a reference set, read when the model is loaded


FORWARD = frozenset({Need.ERROR_NORM, Need.GRADIENT_NORM, Need.SCORED_STATES, Need.ALL_STATES})
"""Needs that require a forward pass of the row itself. Other criteria are added to scored rows without one."""


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
        labels: (M,) int64 the tokens to predict, on the same device.
        cu_seqlens: (n + 1,) int32 bounds of the samples, on the host.
        head: the output layer.
        reduction: ``mean`` or ``sum``, of the loss.
        workspace_bytes: memory that a computation may use at once.
        error_norm: (n,) float64, if a criterion needs it.
        gradient_norm: (n,) float64, if a criterion needs it.
        states: (slots, d) hidden states of all processed tokens, on the trunk's device, if a criterion needs them.
        first_slots: for each sample the slot of its first token in ``states``.
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
        numbers: (width,) float64 result of :meth:`Bound.of_batch`; empty if the width is 0.
        second: for each sample of the second pass the sum of its token losses in nats (NaN if it did not fit in
            memory) and their number.
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
    """A criterion bound to a loaded model."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the criterion."""

    def width(self) -> int:
        """Number of values that :meth:`of_batch` returns per row."""

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, width) numbers on any device. A row must not depend on other rows or on the batch."""

    def second_pass(self, sample: TokenizedSample) -> Sequence[TokenizedSample]:
        """Samples to run in addition to the row's own."""

    def of_row(self, row: RowView) -> Sequence[Value]:
        """One value per column."""


class Criterion:
    """Base class of the criteria. A criterion that needs no model is its own :class:`Bound`."""

    name: str = ""
    needs: frozenset[Need] = frozenset()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the criterion; only the bound form may know the sizes of vectors."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Settings that decide its numbers, in addition to those of the folder, in JSON types."""
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
        """See :class:`Bound`; by default one number per column."""
        return row.numbers.tolist()


def fingerprint(criterion: Criterion) -> str:
    """Hash of a criterion's settings. Columns with different fingerprints are different columns."""
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
