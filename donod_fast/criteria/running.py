"""The criteria of a run, bound to a loaded model: their combined needs, and their values for a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from donod_fast.criteria.base import (
    FORWARD,
    NAN,
    BatchView,
    Bound,
    Column,
    Context,
    Criterion,
    Need,
    RowView,
    Value,
    fingerprint,
)
from donod_fast.data.types import TokenizedSample
from donod_fast.scores.signals import SignalEntry

Second = Sequence[tuple[float, int]]


class SignalSet:
    """Criteria bound to one model.

    Attributes:
        entries: their entries in the manifest.
        columns: the columns of all criteria, in the order of the criteria.
        extras: fields that they need from the head mathematics (``extras`` of ``don_nod``).
        needs_forward: whether rows that are already scored need another forward pass.
        needs_states: whether the hidden states of all tokens are needed.
        width: number of values per row that come from the device.
    """

    def __init__(self, criteria: Sequence[Criterion] = (), bound: Sequence[Bound] = ()) -> None:
        self._criteria, self._bound = tuple(criteria), tuple(bound)
        self.entries = tuple(_entry(one, other) for one, other in zip(criteria, bound, strict=True))
        self.columns: tuple[Column, ...] = tuple(column for entry in self.entries for column in entry.columns)
        needs = frozenset[Need]().union(*(one.needs for one in criteria))
        self.extras = tuple(str(need) for need in (Need.ERROR_NORM, Need.GRADIENT_NORM) if need in needs)
        self.needs_forward = bool(needs & FORWARD)
        self.needs_states = Need.ALL_STATES in needs
        self._widths = [one.width() for one in bound]
        self.width = sum(self._widths)

    @staticmethod
    def of(criteria: Sequence[Criterion], context: Context) -> SignalSet:
        """Bind criteria to a model. Raises CorpusError or InputError if a reference set is unusable."""
        return SignalSet(criteria, [criterion.bind(context) for criterion in criteria])

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hash of the settings of each criterion, by name."""
        return {entry.name: entry.fingerprint for entry in self.entries}

    def __bool__(self) -> bool:
        return bool(self._bound)

    def without(self, names: Collection[str]) -> SignalSet:
        """The set without the named criteria."""
        left = [(one, bound) for one, bound in zip(self._criteria, self._bound, strict=True) if one.name not in names]
        return SignalSet([one for one, _ in left], [bound for _, bound in left])

    def second_pass(self, sample: TokenizedSample) -> list[list[TokenizedSample]]:
        """For each criterion the samples to run in addition to the row's own."""
        return [list(bound.second_pass(sample)) for bound in self._bound]

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, width) float64 on the head's device."""
        device = view.hidden.device
        return torch.cat([bound.of_batch(view).to(device, torch.float64) for bound in self._bound], 1)

    def of_row(
        self, sample: TokenizedSample, loss: float, reduction: str, numbers: Tensor | None, second: Sequence[Second]
    ) -> tuple[Value, ...]:
        """One value per column; ``numbers`` is None if the row did not fit in memory."""
        if numbers is None:
            numbers = torch.full((self.width,), NAN, dtype=torch.float64)
        parts = torch.split(numbers, self._widths)
        rows = (RowView(sample, loss, reduction, part, runs) for part, runs in zip(parts, second, strict=True))
        return tuple(value for bound, row in zip(self._bound, rows, strict=True) for value in bound.of_row(row))

    def nothing(self) -> tuple[Value, ...]:
        """The values of a row without a score."""
        return (None,) * len(self.columns)


def _entry(criterion: Criterion, bound: Bound) -> SignalEntry:
    """The manifest entry of a criterion that is bound to a model."""
    return SignalEntry(criterion.name, criterion.settings(), fingerprint(criterion), tuple(bound.columns))


NO_SIGNALS = SignalSet()


def fingerprints(criteria: Sequence[Criterion]) -> Mapping[str, str]:
    """Hash of the settings of each criterion, by name; needs no model."""
    return {criterion.name: fingerprint(criterion) for criterion in criteria}


__all__ = ["NO_SIGNALS", "Second", "SignalSet", "fingerprints"]
