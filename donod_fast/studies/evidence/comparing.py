"""From the trainings of a study to comparisons with random draws: one line for each method, draw and held-out set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from donod_fast.studies.core.finetune import RowLosses
from donod_fast.studies.core.paired import PairedDifference, Spread, holm, in_words, is_shown, paired_difference
from donod_fast.studies.evidence.result import ALL, KEEP, RANDOM, REMOVE, UNTRAINED, EvidenceRow, EvidenceStudy

KIND_NAMES = {
    "rows": "random, same rows",
    "tokens": "random, same tokens",
    "lengths": "random, same lengths",
    "compute": "random, same compute",
}
"""Names of the random draws in tables and sentences, by their kinds."""

_ALIKE = 0.7
"""Share of a draw's rows that the selection has too, from which the two can hardly differ."""


@dataclass(frozen=True)
class Comparison:
    """A method and the random draws that it is compared with.

    Attributes:
        pair, pool, tuning, arm, share, method: as in an ``EvidenceRow``.
        kind: what the draws have in common with the selection.
        heldout: name of the held-out set.
        domain: ``"in"`` or ``"out"`` of the pool's target domain.
        ours: mean loss of the method.
        random: mean loss of the draws.
        difference: the method's loss minus that of the draws.
        adjusted: its p-value, adjusted for all comparisons of the study (Holm).
        compared: number of comparisons of the study.
        overlap: mean share of a draw's rows that the selection has too; None if it was not measured.
        more_tokens: tokens that the selection trained on, over those of the draws, minus 1; None if a count is missing.
    """

    pair: str
    pool: str
    tuning: str
    arm: str
    share: float
    method: str
    kind: str
    heldout: str
    domain: str
    ours: float
    random: float
    difference: PairedDifference
    adjusted: float = 1.0
    compared: int = 1
    overlap: float | None = None
    more_tokens: float | None = None

    @property
    def shown(self) -> bool:
        """Whether the difference is shown at 5 %, among all comparisons."""
        return is_shown(self.difference, self.adjusted)

    @property
    def better(self) -> bool:
        """Whether the method was better than random here: a lower loss, or a higher one when its rows are removed."""
        return (self.difference.value < 0) == (self.arm == KEEP)

    @property
    def words(self) -> str:
        """The comparison in one line."""
        method, other = self.method, KIND_NAMES[self.kind]
        if self.arm == REMOVE:
            method, other = f"without the rows of {method}", "without as many random rows"
        said = in_words(self.difference, method, other, adjusted=self.adjusted, compared=self.compared)
        if self.overlap is not None and self.overlap > _ALIKE:
            said += f"; the draws have {self.overlap:.0%} of their rows in common with the selection"
        return f"{self.heldout}: {said}"


def comparisons(study: EvidenceStudy) -> list[Comparison]:
    """All comparisons of a study, adjusted together for their number."""
    groups = [
        one
        for setting in _settings(study)
        for heldout in study.rows[0].losses
        for one in _of_setting(study, *setting, heldout)
    ]
    # Methods that select the same rows are one comparison, however many names it has.
    keys = [_key(one) for one in groups]
    distinct = dict(zip(keys, groups, strict=True))
    adjusted = dict(zip(distinct, holm([one.difference.p for one in distinct.values()]), strict=True))
    return [replace(one, adjusted=adjusted[key], compared=len(distinct)) for key, one in zip(keys, groups, strict=True)]


def _key(one: Comparison) -> tuple[object, ...]:
    difference = one.difference
    setting = (one.pair, one.pool, one.tuning, one.arm, one.share, one.kind, one.heldout)
    return (*setting, difference.value, difference.error, difference.p)


def mean_loss(rows: Sequence[EvidenceRow], heldout: str) -> float:
    """Mean loss of some trainings on a held-out set."""
    return float(np.mean([row.losses[heldout].loss for row in rows]))


_Setting = tuple[str, str, str, str, float]


def _settings(study: EvidenceStudy) -> list[_Setting]:
    """Everything but methods and draws, in the order of the rows."""
    found = (
        (row.pair, row.pool, row.tuning, row.arm, row.share) for row in study.rows if row.method not in (UNTRAINED, ALL)
    )
    return list(dict.fromkeys(found))


def _of_setting(
    study: EvidenceStudy, pair: str, pool: str, tuning: str, arm: str, share: float, heldout: str
) -> Iterator[Comparison]:
    rows = list(study.where(pair=pair, pool=pool, tuning=tuning, arm=arm, share=share))
    methods: dict[str, list[EvidenceRow]] = {}
    draws: dict[tuple[str, str, int], dict[int, list[EvidenceRow]]] = {}
    for row in rows:
        if row.method != RANDOM:
            methods.setdefault(row.method, []).append(row)
        elif row.draw is not None:
            count = row.rows if not row.matched else 0  # draws of as many rows are shared by equal counts
            draws.setdefault((row.kind, row.matched, count), {}).setdefault(row.draw, []).append(row)
    spread = _seeds_spread(methods, heldout)
    for method, ours in methods.items():
        for (kind, matched, count), others in draws.items():
            if matched not in ("", method) or (not matched and count != ours[0].rows):
                continue
            a = _sums([row.losses[heldout]] for row in ours)
            b = _sums([row.losses[heldout] for row in of_draw] for of_draw in others.values())
            tokens = np.array(ours[0].losses[heldout].tokens, dtype=np.float64)
            overlaps = [row.overlap for row in itertools.chain(*others.values()) if row.overlap is not None]
            yield Comparison(
                pair,
                pool,
                tuning,
                arm,
                share,
                method,
                kind,
                heldout,
                study.domains[pool, heldout],
                float(a.sum(1).mean() / tokens.sum()),
                float(b.sum(1).mean() / tokens.sum()),
                paired_difference(a, b, tokens, seeds_spread=spread),
                overlap=float(np.mean(overlaps)) if overlaps else None,
                more_tokens=_more_tokens(ours, list(itertools.chain(*others.values()))),
            )


def _more_tokens(ours: Sequence[EvidenceRow], others: Sequence[EvidenceRow]) -> float | None:
    drawn = float(np.mean([row.tokens for row in others]))
    return float(np.mean([row.tokens for row in ours])) / drawn - 1 if drawn else None


def _sums(
    trainings: Iterator[list[RowLosses]] | Sequence[list[RowLosses]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(trainings, rows) losses, the mean over the seeds of each."""
    return np.array([RowLosses.mean(some).sums for some in trainings], dtype=np.float64)


def _seeds_spread(methods: Mapping[str, Sequence[EvidenceRow]], heldout: str) -> Spread:
    """Variance over training seeds, pooled over methods; methods that select the same rows count once."""
    groups = {tuple(row.losses[heldout].loss for row in rows) for rows in methods.values()}
    return Spread.pooled(sorted(groups))


__all__ = ["KIND_NAMES", "Comparison", "comparisons", "mean_loss"]
