"""Result of an evidence study: one row a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from donod_fast.studies.core.finetune import RowLosses

UNTRAINED, ALL, RANDOM = "untrained", "all", "random"
KEEP, REMOVE = "keep", "remove"


@dataclass(frozen=True)
class Compute:
    """What something cost.

    Attributes:
        tokens: tokens that went through the model, each pass counted; padding is not.
        flops: floating-point operations, see :mod:`donod_fast.studies.evidence.compute`.
        seconds: wall time here.
    """

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Compute) -> Compute:
        return Compute(self.tokens + other.tokens, self.flops + other.flops, self.seconds + other.seconds)


@dataclass(frozen=True)
class EvidenceRow:
    """One training and what was measured.

    Attributes:
        pair, pool, tuning: their names in the plan.
        arm: ``"keep"`` trains on the selected rows, ``"remove"`` on the pool without them.
        method: a method of the plan, ``"random"``, ``"all"`` (the whole pool) or ``"untrained"``.
        kind: for ``"random"``, what the draw has in common with the selection.
        matched: for ``"random"``, the method whose selection the draw is matched to; "" if it is shared by all.
        share: share of the pool that the selection has; 1.0 for ``"all"``, 0.0 for ``"untrained"``.
        draw: number of the random draw; None for other methods.
        seed: training seed; None for ``"untrained"``.
        rows: number of selected (``"keep"``) or removed rows.
        tokens: tokens trained on, with repetitions.
        overlap: share of the draw's rows that the matched selection has too; None without one.
        scoring: cost of the scores that the selection needs.
        training: cost of the training.
        losses: losses on the rows of each held-out set, by its name.
        benchmarks: further measures by name.
    """

    pair: str
    pool: str
    tuning: str
    arm: str
    method: str
    kind: str
    matched: str
    share: float
    draw: int | None
    seed: int | None
    rows: int
    tokens: int
    overlap: float | None
    scoring: Compute
    training: Compute
    losses: Mapping[str, RowLosses] = field(repr=False)
    benchmarks: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values of one line, for a table: one column for each loss and measure."""
        names = ("pair", "pool", "tuning", "arm", "method", "kind", "matched", "share", "draw", "seed", "rows")
        return {
            **{name: getattr(self, name) for name in names},
            "tokens": self.tokens,
            "overlap": self.overlap,
            **{f"scoring_{name}": getattr(self.scoring, name) for name in ("tokens", "flops", "seconds")},
            **{f"training_{name}": getattr(self.training, name) for name in ("tokens", "flops", "seconds")},
            **{f"loss:{name}": losses.loss for name, losses in self.losses.items()},
            **self.benchmarks,
        }


@dataclass(frozen=True)
class EvidenceStudy:
    """Result of a study.

    Attributes:
        settings: settings of the run, plain values.
        rows: one for each training, in the order of the plan; equal trainings of two methods have a row for each.
        domains: ``"in"`` or ``"out"``, by pool and held-out set.
        selections: the selected rows (positions in the pool) by pair, pool, method and share.
    """

    settings: Mapping[str, Any]
    rows: tuple[EvidenceRow, ...]
    domains: Mapping[tuple[str, str], str]
    selections: Mapping[tuple[str, str, str, float], tuple[int, ...]] = field(repr=False)

    def where(self, **wanted: Any) -> Iterator[EvidenceRow]:
        """The rows whose attributes have these values."""
        for row in self.rows:
            if all(getattr(row, name) == value for name, value in wanted.items()):
                yield row


__all__ = ["ALL", "KEEP", "RANDOM", "REMOVE", "UNTRAINED", "Compute", "EvidenceRow", "EvidenceStudy"]
