"""Compare how two runs of a model rank a corpus, for example in bfloat16 and in float8.

Selection uses ranks, so errors of single scores say little. Two runs are compared by Spearman's rank correlation of DON
and of NOD, and by the overlap of their best 30 % by TOPSIS.
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
from donod_fast.selection.rank_correlation import spearman
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.system.wording import plural

KEPT = 0.3
"""The share that is selected for the overlap: the larger one of the paper."""

LEAST_SPEARMAN = 0.99
"""The smallest rank correlation, of DON and of NOD, at which a lower precision passes."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two rankings over the rows that both runs scored.

    Attributes:
        rows: number of these rows.
        spearman_don: Spearman's rank correlation of DON, in [-1, 1]; NaN if a column is constant.
        spearman_nod: the same of NOD.
        overlap: share of the best 30 % of one run that is in the best 30 % of the other, in [0, 1].
    """

    rows: int
    spearman_don: float
    spearman_nod: float
    overlap: float

    def passed(self, least: float = LEAST_SPEARMAN) -> bool:
        """Whether both correlations are at least ``least``; NaN fails."""
        return self.spearman_don >= least and self.spearman_nod >= least


def rank_agreement(reference: Sequence[ScoreRow], other: Sequence[ScoreRow]) -> Agreement:
    """Compare two runs over the same corpus; rows are matched by their number.

    Raises:
        InputError: fewer than three rows are scored in both; their ranks mean nothing.
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


def compare_runs(
    reference: Callable[[], Scorer],
    other: Callable[[], Scorer],
    records: Sequence[Record],
    progress: Progress | None = None,
) -> tuple[Agreement, str, Scorer]:
    """Score the records with one scorer, then with the other; only one is in memory at a time.

    Args:
        reference: loads the scorer that serves as the reference.
        other: loads the scorer to compare with it.
        records: rows of a corpus.
        progress: called with (rows, tokens) after each batch of either scorer.

    Returns:
        The agreement, the precision of the reference's trunk, and the second scorer.

    Raises:
        InputError: fewer than three rows can be scored by both.
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
    """``count`` records spread evenly over a corpus (all of them if it has fewer), in corpus order."""
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
    "compare_runs",
    "rank_agreement",
    "spread_rows",
]
