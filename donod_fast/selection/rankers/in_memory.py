"""The ranking of rows in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.selection.rankers.columns import load_columns
from donod_fast.selection.rankers.interface import Kept, Ordered, unhelped
from donod_fast.selection.settings import RankOptions

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.explain import ExplainedRow
    from donod_fast.selection.following import Following
    from donod_fast.selection.ranking import Ranking, ScoreColumns
    from donod_fast.selection.subset import Records


class InMemory:
    """See :class:`Engine`."""

    name = "memory"

    def __init__(self, folder: ScoresFolder, options: RankOptions) -> None:
        from donod_fast.selection.ranking import rank

        self._columns = load_columns(folder, options.lr)
        if options.checkpoint:
            self._columns = _averaged(self._columns, folder, options)
        self._ranking: Ranking = rank(
            self._columns,
            options.method,
            weights=options.weights,
            normalise=options.normalise,
            seed=options.seed,
        )

    @property
    def scored(self) -> int:
        return len(self._ranking.order)

    @property
    def left_out(self) -> Mapping[str, int]:
        return unhelped(self._ranking.left_out)

    @property
    def highest(self) -> float:
        return float(self._ranking.value.max())

    @property
    def following(self) -> Following | None:
        from donod_fast.selection.following import following_of

        return following_of(self._ranking, self._columns)

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        from donod_fast.selection.keeping import keep as keep_rows

        return Kept(keep_rows(self._ranking, keep=keep, don_threshold=don_threshold, don_quantile=don_quantile))

    def order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        return self._ranking.order.numpy(), self._ranking.value.numpy()

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        from donod_fast.selection.explain import best_and_worst

        return best_and_worst(self._ranking, self._columns, corpus, count, width, encoding=encoding)

    def ordered(self) -> Ordered:
        rows = self._ranking.order.numpy()
        total = self._ranking.total
        return Ordered(rows, None, (None,), (total,), (len(rows),), total)


def _averaged(columns: ScoreColumns, folder: ScoresFolder, options: RankOptions) -> ScoreColumns:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.checkpoints import over_checkpoints
    from donod_fast.selection.column_methods import find_method

    by = find_method(options.method, columns.names)
    if by is None:
        raise InputError(f"--checkpoint averages a column, such as less_head; method {options.method} ranks by others")
    return over_checkpoints(columns, by.column, folder, [ScoresFolder.open(one) for one in options.checkpoint])


__all__ = ["InMemory"]
