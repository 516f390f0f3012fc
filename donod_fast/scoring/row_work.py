"""Samples to run for some rows: each row's own sample, and those of a second pass that criteria need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from donod_fast.criteria.base import NAN
from donod_fast.criteria.running import NO_SIGNALS, SignalSet
from donod_fast.data.types import TokenizedSample
from donod_fast.scoring.forward import BatchRequest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Found(NamedTuple):
    """Result of running a sample.

    Attributes:
        values: for a row's own sample its scores in the order of ``SCORE_COLUMNS`` (NaN if they are known already); for
            a sample of the second pass the sum of its token losses first.
        numbers: (width,) numbers of the criteria, for a row's own sample.
        token_losses: (scored tokens,) losses in nats, for a row's own sample, if they were asked for.
    """

    values: list[float]
    numbers: Tensor | None = None
    token_losses: npt.NDArray[np.float32] | None = None


@dataclass(slots=True)
class RowRun:
    """Results of a row.

    Attributes:
        own: scores in the order of ``SCORE_COLUMNS``; None if the row did not fit in memory.
        numbers: numbers of the criteria; None if the row did not fit in memory.
        token_losses: losses of the row's tokens; None if they were not asked for, or the row did not fit in memory.
        second: by criterion, for each sample of the second pass the sum of its token losses and their number.
    """

    own: list[float] | None = None
    numbers: Tensor | None = None
    token_losses: npt.NDArray[np.float32] | None = None
    second: list[list[tuple[float, int]]] = field(default_factory=list)


class Work:
    """Samples to run, in one list, and the rows that they belong to.

    Attributes:
        rows: the rows that get results.
        samples: the samples to run; a row's own sample comes before those of its second pass.
        signals: the criteria.
        scores: whether the own samples get DON and NOD.
        token_losses: whether the losses of their tokens are returned.
    """

    def __init__(
        self,
        rows: Sequence[TokenizedSample],
        signals: SignalSet,
        *,
        own: bool,
        scores: bool,
        token_losses: bool = False,
    ) -> None:
        self.rows, self.signals, self.scores, self.token_losses = rows, signals, scores, token_losses
        self.samples: list[TokenizedSample] = []
        self._role: list[tuple[int, int, int]] = []  # of each sample: row, criterion (−1: its own), place there
        self._results = [RowRun() for _ in rows]
        self._pending = [0] * len(rows)
        for number, row in enumerate(rows):
            if own:
                self._append(row, number, -1, 0)
            if signals:
                for criterion, further in enumerate(signals.second_pass(row)):
                    self._results[number].second.append([(NAN, sample.scored_tokens) for sample in further])
                    for place, sample in enumerate(further):
                        self._append(sample, number, criterion, place)

    @staticmethod
    def scoring(
        rows: Sequence[TokenizedSample], signals: SignalSet = NO_SIGNALS, *, token_losses: bool = False
    ) -> Work:
        """The work for rows without scores."""
        return Work(rows, signals, own=True, scores=True, token_losses=token_losses)

    @staticmethod
    def losses(rows: Sequence[TokenizedSample]) -> Work:
        """The work for rows with scores that lack the losses of their tokens."""
        return Work(rows, NO_SIGNALS, own=True, scores=False, token_losses=True)

    @staticmethod
    def adding(rows: Sequence[TokenizedSample], signals: SignalSet) -> Work:
        """The work for rows with scores: they are run again only if a criterion needs it."""
        return Work(rows, signals, own=signals.needs_forward, scores=False)

    def is_own(self, item: int) -> bool:
        """Whether a sample is a row's own."""
        return self._role[item][1] < 0

    def request(self, group: Sequence[int]) -> BatchRequest:
        """What is computed from a batch of these samples, in which the rows' own come first."""
        samples = [self.samples[item] for item in group]
        return BatchRequest(samples, sum(map(self.is_own, group)), self.signals, self.scores, self.token_losses)

    def idle_rows(self) -> list[TokenizedSample]:
        """Rows for which nothing must be run."""
        return [row for row, pending in zip(self.rows, self._pending, strict=True) if not pending]

    def take(self, item: int, found: Found | None) -> TokenizedSample | None:
        """Note a sample's result, None if it did not fit in memory. Returns its row if that was the row's last one."""
        number, criterion, place = self._role[item]
        result = self._results[number]
        if found is not None:
            if criterion < 0:
                result.own, result.numbers, result.token_losses = found
            else:
                result.second[criterion][place] = (found.values[0], self.samples[item].scored_tokens)
        self._pending[number] -= 1
        return None if self._pending[number] else self.rows[number]

    def results(self) -> list[RowRun]:
        """Results by row, after every sample has been taken."""
        return self._results

    def _append(self, sample: TokenizedSample, number: int, criterion: int, place: int) -> None:
        self.samples.append(sample)
        self._role.append((number, criterion, place))
        self._pending[number] += 1


__all__ = ["Found", "RowRun", "Work"]
