"""Do two ways to run a model rank a corpus alike? What a lower precision costs, in the terms that selection uses.

Errors of single scores say little here: a selection is made by rank. So two runs are compared by Spearman's rank
correlation of DON and of NOD, and by how much of the best 30 % (TOPSIS) they have in common.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.data.reading import Corpus
from donod_fast.data.types import Record, Status
from donod_fast.errors import InputError
from donod_fast.scores.rows import ScoreRow
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.keeping import keep
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.system.wording import plural

KEPT = 0.3
"""The share that is selected for the overlap: the paper's upper one."""

LEAST_SPEARMAN = 0.99
"""What a lower precision has to reach in both columns."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two runs rank the rows that both of them scored.

    Attributes:
        rows: how many those are.
        spearman_don: Spearman's rank correlation of DON, in [-1, 1]; NaN where a column is constant.
        spearman_nod: the same of NOD.
        overlap: share of the best 30 % of one run that is in the best 30 % of the other, in [0, 1].
    """

    rows: int
    spearman_don: float
    spearman_nod: float
    overlap: float

    def passed(self, least: float = LEAST_SPEARMAN) -> bool:
        """Whether both correlations are at least ``least``; a NaN is not."""
        return self.spearman_don >= least and self.spearman_nod >= least


def rank_agreement(reference: Sequence[ScoreRow], other: Sequence[ScoreRow]) -> Agreement:
    """Compare two runs over the same corpus; rows are matched by their number.

    Raises:
        InputError: fewer than three rows are scored in both, which have no ranks to speak of.
    """
    first, second = (
        {row.row: row for row in rows if row.status == Status.SCORED and math.isfinite(row.don + row.nod)}
        for rows in (reference, other)
    )
    both = sorted(first.keys() & second.keys())
    if len(both) < 3:
        raise InputError(f"only {plural(len(both), 'row')} scored in both runs; give more rows in a known format")
    columns = [_columns([scores[row] for row in both]) for scores in (first, second)]
    kept = [set(keep(rank(column), keep=KEPT).tolist()) for column in columns]
    return Agreement(
        len(both),
        spearman(columns[0].don, columns[1].don),
        spearman(columns[0].nod, columns[1].nod),
        len(kept[0] & kept[1]) / len(kept[0]),
    )


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two (n,) columns: Pearson's of their ranks, ties at their average rank.

    NaN where a column is constant (or n < 2).
    """
    x, y = average_ranks(a), average_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(x.square().sum() * y.square().sum())
    return float((x * y).sum()) / math.sqrt(size) if size > 0 else math.nan


def average_ranks(column: Tensor) -> Tensor:
    """Rank of each element, from 1, (n,) float64; equal elements share the average of the ranks they take up."""
    _, place, counts = torch.unique(column, sorted=True, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts.double() - 1) / 2
    return ranks[place]


def compare_runs(
    reference: Callable[[], Scorer],
    other: Callable[[], Scorer],
    records: Sequence[Record],
    progress: Progress | None = None,
) -> tuple[Agreement, str, Scorer]:
    """Score the records with one scorer, then with the other; never are both in memory.

    Args:
        reference: loads the scorer that is taken for right.
        other: loads the one to judge.
        records: rows of a corpus.
        progress: called with (rows, tokens) as they are done, by either.

    Returns:
        The agreement, the precision of the reference's trunk, and the second scorer.

    Raises:
        InputError: hardly any row can be scored by both.
        ModelError: a scorer cannot be loaded.
    """
    first = reference()
    precision, expected = first.loaded.precision, first.score_records(records, progress)
    del first
    gc.collect()  # modules and hooks refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    second = other()
    return rank_agreement(expected, second.score_records(records, progress)), precision, second


def spread_rows(corpus: Corpus, count: int) -> list[Record]:
    """``count`` records spread evenly over a corpus (all, where it has no more), in its order."""
    wanted = {place * corpus.rows // count for place in range(count)} if count < corpus.rows else None
    last = corpus.rows if wanted is None else max(wanted) + 1
    return [record for record in corpus.records(0, last) if wanted is None or record.row in wanted]


def _columns(rows: Sequence[ScoreRow]) -> ScoreColumns:
    def column(name: str) -> Tensor:
        return torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64)

    return ScoreColumns(torch.tensor([row.row for row in rows]), column("don"), column("nod"), column("loss"))


__all__ = [
    "KEPT",
    "LEAST_SPEARMAN",
    "Agreement",
    "average_ranks",
    "compare_runs",
    "rank_agreement",
    "spearman",
    "spread_rows",
]
