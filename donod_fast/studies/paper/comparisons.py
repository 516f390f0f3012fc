"""Differences of the grid: a method against random draws and against all rows, by measure, with intervals.

Losses are compared with random draws by :mod:`donod_fast.studies.evidence.comparing`. Here come the shares of solved
problems, the differences from training on all rows, and one adjustment for all comparisons with random draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from donod_fast.studies.core.paired import CONFIDENCE, Spread, holm, paired_difference, signed
from donod_fast.studies.evidence import comparing
from donod_fast.studies.evidence.plan import IN
from donod_fast.studies.evidence.result import ALL, KEEP, RANDOM, UNTRAINED, EvidenceRow, EvidenceStudy
from donod_fast.studies.evidence.verdict import verdict

DomainOf = Callable[[str, str], str]
"""Name of a corpus and of a benchmark's number → ``in`` or ``out``."""

_SAME = 1e-9
"""Spread of shares from 0 to 1 that is rounding."""


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

    def of(self, row: EvidenceRow) -> float:
        """Its value after a training."""
        return row.losses[self.name].loss if self.is_loss else row.benchmarks[self.name]


@dataclass(frozen=True)
class Comparison:
    """A method's measure minus that of something else.

    Attributes:
        pair, pool, arm, method, share: the selection, see ``EvidenceRow``.
        measure: the measure.
        against: ``all`` (training on all rows), or what random draws have in common with the selection.
        value, low, high: the difference and its 95 % interval; infinite bounds if there is no spread to judge by.
        p: two-sided p-value, not adjusted.
        relative: the difference over the other's value.
        adjusted: p-value by Holm's method over all comparisons with random draws; NaN against all rows.
    """

    pair: str
    pool: str
    arm: str
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
        return self.adjusted < 1 - CONFIDENCE and not self.low <= 0 <= self.high

    @property
    def better(self) -> bool:
        """Whether the difference is in the method's favour."""
        return ((self.value < 0) == self.measure.is_loss) == (self.arm == KEEP)

    def text(self) -> str:
        """``−0.0132 [−0.0210, −0.0051]``, with a star if it is shown."""
        star = " *" if self.shown else ""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return signed(self.value) + star
        return f"{signed(self.value)} [{signed(self.low)}, {signed(self.high)}]{star}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a CSV file."""
        names = (
            "pair",
            "pool",
            "arm",
            "method",
            "share",
            "against",
            "value",
            "low",
            "high",
            "p",
            "adjusted",
            "relative",
        )
        measure = self.measure
        return {
            **{name: getattr(self, name) for name in names[:5]},
            "measure": measure.name,
            "domain": measure.domain,
            "is_loss": measure.is_loss,
            **{name: getattr(self, name) for name in names[5:]},
        }


def measures_of(study: EvidenceStudy, pool: str, domain_of: DomainOf) -> list[Measure]:
    """The measures of a corpus: held-out sets first, targets first."""
    row = next(study.where(pool=pool, method=UNTRAINED))
    losses = [Measure(name, study.domains[pool, name], True) for name in row.losses]
    numbers = [Measure(name, domain_of(pool, name), False) for name in row.benchmarks]
    return sorted([*losses, *numbers], key=lambda one: (not one.is_loss, one.domain != IN))


def compare(study: EvidenceStudy, domain_of: DomainOf) -> tuple[list[Comparison], str]:
    """All differences of a grid, and the verdict on its losses in words (Markdown).

    Every difference from random draws, of losses and of shares, is adjusted for the number of all of them.
    """
    losses = comparing.comparisons(study)
    random = [*(_of_loss(one) for one in losses), *_shares_against_random(study, domain_of)]
    # Methods that select the same rows are one comparison, however many names it has.
    keys = [(one.pair, one.pool, one.arm, one.share, one.measure, one.against, one.value, one.p) for one in random]
    p_values = dict(zip(keys, (one.p for one in random), strict=True))
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    random = [replace(one, adjusted=adjusted[key]) for key, one in zip(keys, random, strict=True)]
    judged = [
        replace(one, adjusted=mine.adjusted, compared=len(adjusted))
        for one, mine in zip(losses, random[: len(losses)], strict=True)
    ]
    return [*random, *_against_all(study, domain_of)], verdict(judged).text()


def _of_loss(one: comparing.Comparison) -> Comparison:
    difference = one.difference
    return Comparison(
        one.pair,
        one.pool,
        one.arm,
        one.method,
        one.share,
        Measure(one.heldout, one.domain, True),
        one.kind,
        difference.value,
        difference.low,
        difference.high,
        difference.p,
        difference.value / one.random if one.random else math.nan,
    )


def _shares_against_random(study: EvidenceStudy, domain_of: DomainOf) -> Iterator[Comparison]:
    for ours, rows in _selections(study):
        first = ours[0]
        draws: dict[str, dict[int, list[EvidenceRow]]] = {}
        for row in rows:
            fits = row.matched == first.method or (not row.matched and row.rows == first.rows)
            if row.method == RANDOM and row.share == first.share and fits:
                draws.setdefault(row.kind, {}).setdefault(row.draw or 0, []).append(row)
        for measure in measures_of(study, first.pool, domain_of):
            for kind, of_draw in draws.items() if not measure.is_loss else ():
                yield _shares(first, measure, kind, ours, list(of_draw.values()))


def _against_all(study: EvidenceStudy, domain_of: DomainOf) -> Iterator[Comparison]:
    selections = [(ours, rows) for ours, rows in _selections(study) if ours[0].arm == KEEP]
    everything = {
        (row.pair, row.pool): list(study.where(pair=row.pair, pool=row.pool, method=ALL)) for (row, *_), _ in selections
    }
    for ours, _ in selections:
        first = ours[0]
        others = everything[first.pair, first.pool]
        for measure in measures_of(study, first.pool, domain_of):
            if not measure.is_loss:
                yield _shares(first, measure, ALL, ours, [[row] for row in others])
                continue
            groups = [
                [measure.of(row) for row in some]
                for some, _ in selections
                if (some[0].pair, some[0].pool) == (first.pair, first.pool)
            ]
            found = paired_difference(
                [row.losses[measure.name].sums for row in ours],
                [row.losses[measure.name].sums for row in others],
                first.losses[measure.name].tokens,
                seeds_spread=Spread.pooled([*groups, [measure.of(row) for row in others]]),
            )
            other = float(np.mean([measure.of(row) for row in others]))
            yield Comparison(
                first.pair,
                first.pool,
                first.arm,
                first.method,
                first.share,
                measure,
                ALL,
                found.value,
                found.low,
                found.high,
                found.p,
                found.value / other if other else math.nan,
            )


def _selections(study: EvidenceStudy) -> Iterator[tuple[list[EvidenceRow], list[EvidenceRow]]]:
    """The trainings of each selection, and all trainings of its models, corpus and arm."""
    groups: dict[tuple[str, str, str], list[EvidenceRow]] = {}
    for row in study.rows:
        groups.setdefault((row.pair, row.pool, row.arm), []).append(row)
    for rows in groups.values():
        found: dict[tuple[str, float], list[EvidenceRow]] = {}
        for row in rows:
            if row.method not in (ALL, RANDOM, UNTRAINED):
                found.setdefault((row.method, row.share), []).append(row)
        for ours in found.values():
            yield ours, rows


def _shares(
    first: EvidenceRow,
    measure: Measure,
    against: str,
    ours: Sequence[EvidenceRow],
    others: Sequence[Sequence[EvidenceRow]],
) -> Comparison:
    """Difference of the means of two groups of trainings, Welch's t."""
    from scipy.stats import t

    a = np.array([measure.of(row) for row in ours])
    b = np.array([np.mean([measure.of(row) for row in some]) for some in others])
    value, other = float(a.mean() - b.mean()), float(b.mean())
    low, high, p = -math.inf, math.inf, 1.0  # without a spread there is nothing to judge by
    if max(np.ptp(a), np.ptp(b)) > _SAME:
        parts = [float(np.var(one, ddof=1)) / len(one) for one in (a, b)]
        degrees = sum(parts) ** 2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, (a, b), strict=True))
        error = math.sqrt(sum(parts))
        half = float(t.ppf(0.5 + CONFIDENCE / 2, degrees)) * error
        low, high, p = value - half, value + half, float(2 * t.sf(abs(value) / error, degrees))
    return Comparison(
        first.pair,
        first.pool,
        first.arm,
        first.method,
        first.share,
        measure,
        against,
        value,
        low,
        high,
        p,
        value / other if other else math.nan,
    )


def summary(found: Iterable[Comparison]) -> str:
    """Say how many shares of solved problems differ from random draws, and which; "" if no benchmark was measured."""
    random = [one for one in found if one.against != ALL and not one.measure.is_loss]
    if not random:
        return ""
    words = [f"Of {len(random)} comparisons of benchmarks, {sum(one.shown for one in random)} are shown"]
    for better, word in ((True, "better"), (False, "worse")):
        some = [
            f"{one.method} at {100 * one.share:g} % on {one.measure.name.rpartition('/')[2]} (same {one.against})"
            for one in random
            if one.shown and one.better == better
        ]
        if some:
            words.append(f"{word} than random: {', '.join(some)}")
    return f"**Benchmarks**: {'; '.join(words)}.\n"


def find(found: Sequence[Comparison], **wanted: Any) -> dict[tuple[str, float, str], Comparison]:
    """Comparisons with these attributes, by method, share and measure."""
    some = [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]
    return {(one.method, one.share, one.measure.name): one for one in some}


__all__ = ["Comparison", "DomainOf", "Measure", "compare", "find", "measures_of", "summary"]
