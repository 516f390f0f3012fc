"""Differences of the grid: a method against random draws and against all rows, by measure, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from donod_fast.studies.core.finetune import RowLosses
from donod_fast.studies.core.paired import CONFIDENCE, Spread, holm, paired_difference, signed
from donod_fast.studies.evidence.plan import IN
from donod_fast.studies.evidence.result import ALL, KEEP, RANDOM, UNTRAINED, EvidenceRow, EvidenceStudy

DomainOf = Callable[[str, str], str]
"""Name of a corpus and of a benchmark's number → ``in`` or ``out``."""


@dataclass(frozen=True)
class Measure:
    """One column of the grid's tables.

    Attributes:
        name: held-out set, or number of a benchmark.
        domain: ``in`` the corpus's domain or ``out`` of it.
        is_loss: whether it is a loss in nats per token (lower is better), or a share from 0 to 1 (higher is better).
    """

    name: str
    domain: str
    is_loss: bool

    @property
    def label(self) -> str:
        """Heading of a column."""
        return f"{self.name} ({'target' if self.domain == IN else 'other'})"

    def of(self, row: EvidenceRow) -> float:
        """Its value after a training."""
        return row.losses[self.name].loss if self.is_loss else row.benchmarks[self.name]


@dataclass(frozen=True)
class Comparison:
    """A method's measure minus that of something else.

    Attributes:
        pair, pool, method, share: the selection.
        measure: the measure.
        against: ``random`` (draws of as many rows) or ``all`` (training on all rows).
        value, low, high: the difference and its 95 % interval.
        p: two-sided p-value, by itself.
        adjusted: p-value by Holm's method over all comparisons with random draws; NaN against all rows.
        relative: the difference over the other's value.
    """

    pair: str
    pool: str
    method: str
    share: float
    measure: Measure
    against: str
    value: float
    low: float
    high: float
    p: float
    relative: float
    adjusted: float = math.nan

    @property
    def shown(self) -> bool:
        """Whether the difference is shown among all comparisons."""
        return self.adjusted < 1 - CONFIDENCE

    @property
    def better(self) -> bool:
        """Whether the difference is in the method's favour."""
        return (self.value < 0) == self.measure.is_loss

    def text(self) -> str:
        """``−0.0132 [−0.0210, −0.0051]``, with a star if it is shown."""
        star = " *" if self.shown else ""
        if not math.isfinite(self.low) or not math.isfinite(self.high):
            return signed(self.value) + star
        return f"{signed(self.value)} [{signed(self.low)}, {signed(self.high)}]{star}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a CSV file."""
        plain = asdict(self)
        measure = plain.pop("measure")
        return {**plain, "measure": measure["name"], "domain": measure["domain"], "is_loss": measure["is_loss"]}


def measures_of(study: EvidenceStudy, pool: str, domain_of: DomainOf) -> list[Measure]:
    """The measures of a corpus: held-out sets first, targets first."""
    row = next(study.where(pool=pool, method=UNTRAINED))
    losses = [Measure(name, study.domains[pool, name], True) for name in row.losses]
    numbers = [Measure(name, domain_of(pool, name), False) for name in row.benchmarks]
    return sorted([*losses, *numbers], key=lambda one: (not one.is_loss, one.domain != IN))


def comparisons(study: EvidenceStudy, domain_of: DomainOf) -> list[Comparison]:
    """All differences against random draws of as many rows, adjusted together, and against all rows."""
    found = list(_all(study, domain_of))
    random = [one for one in found if one.against == RANDOM]
    adjusted = dict(zip(map(id, random), holm([one.p for one in random]), strict=True))
    return [replace(one, adjusted=adjusted.get(id(one), math.nan)) for one in found]


def _all(study: EvidenceStudy, domain_of: DomainOf) -> Iterator[Comparison]:
    kept = [row for row in study.rows if row.arm == KEEP]
    groups: dict[tuple[str, str], list[EvidenceRow]] = {}
    for row in kept:
        groups.setdefault((row.pair, row.pool), []).append(row)
    for (pair, pool), rows in groups.items():
        measures = measures_of(study, pool, domain_of)
        by_method: dict[tuple[str, float], list[EvidenceRow]] = {}
        for row in rows:
            if row.method not in (ALL, RANDOM, UNTRAINED):
                by_method.setdefault((row.method, row.share), []).append(row)
        everything = [row for row in rows if row.method == ALL]
        for measure in measures:
            spread = _spread(list(by_method.values()), measure)
            for (method, share), ours in by_method.items():
                draws = _draws(rows, share, ours[0].rows)
                for against, others in ((RANDOM, draws), (ALL, [[row] for row in everything])):
                    if len(others) > 1 and len(ours) > 1:
                        numbers = _difference(ours, others, measure, spread)
                        other = float(np.mean([np.mean([measure.of(row) for row in some]) for some in others]))
                        relative = numbers["value"] / other if other else math.nan
                        yield Comparison(pair, pool, method, share, measure, against, **numbers, relative=relative)


def _draws(rows: Sequence[EvidenceRow], share: float, count: int) -> list[list[EvidenceRow]]:
    """The trainings of each random draw of as many rows."""
    found: dict[int, list[EvidenceRow]] = {}
    for row in rows:
        if row.method == RANDOM and not row.matched and row.share == share and row.rows == count:
            found.setdefault(row.draw or 0, []).append(row)
    return list(found.values())


def _spread(groups: Sequence[Sequence[EvidenceRow]], measure: Measure) -> Spread:
    """Spread over training seeds, pooled over methods: two seeds estimate it badly."""
    return Spread.pooled([[measure.of(row) for row in some] for some in groups])


def _difference(
    ours: Sequence[EvidenceRow], others: Sequence[Sequence[EvidenceRow]], measure: Measure, spread: Spread
) -> dict[str, float]:
    if not measure.is_loss:
        return _shares([measure.of(row) for row in ours], [np.mean([measure.of(r) for r in some]) for some in others])
    name = measure.name
    mean = [RowLosses.mean([row.losses[name] for row in some]) for some in others]
    found = paired_difference(
        [row.losses[name].sums for row in ours],
        [one.sums for one in mean],
        ours[0].losses[name].tokens,
        seeds_spread=spread if spread.degrees else None,
    )
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p}


def _shares(ours: Sequence[float], others: Sequence[Any]) -> dict[str, float]:
    """Difference of the means of two groups of trainings, Welch's t."""
    from scipy.stats import ttest_ind

    value = float(np.mean(ours) - np.mean(others))
    if np.ptp(ours) == 0 and np.ptp(others) == 0:
        return {"value": value, "low": -math.inf, "high": math.inf, "p": 1.0}  # no spread to judge by
    test = ttest_ind(ours, others, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return {"value": value, "low": float(low), "high": float(high), "p": float(test.pvalue)}


def summary(found: Sequence[Comparison]) -> str:
    """Say in one paragraph how many comparisons with random draws show a difference, and which."""
    random = [one for one in found if one.against == RANDOM]
    shown = [one for one in random if one.shown]
    if not random:
        return "Nothing can be compared with random draws.\n"
    words = [f"Of {len(random)} comparisons with random draws of as many rows, {len(shown)} are shown (Holm)"]
    for better, word in ((True, "better"), (False, "worse")):
        some = [f"{one.method} at {100 * one.share:g} % on {one.measure.name}" for one in shown if one.better == better]
        if some:
            words.append(f"{word} than random: {', '.join(some)}")
    return f"{'; '.join(words)}.\n"


def find(found: Sequence[Comparison], **wanted: Any) -> Mapping[tuple[str, float, str], Comparison]:
    """Comparisons with these attributes, by method, share and measure."""
    some = [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]
    return {(one.method, one.share, one.measure.name): one for one in some}


__all__ = ["Comparison", "DomainOf", "Measure", "comparisons", "find", "measures_of", "summary"]
