"""The ranking of rows that do not fit in memory, or by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from donod_fast.selection.rankers.interface import Kept, Ordered, unhelped
from donod_fast.selection.settings import RankOptions

if TYPE_CHECKING:
    from donod_fast.selection.explain import ExplainedRow
    from donod_fast.selection.following import Following
    from donod_fast.selection.out_of_core import BigRanking
    from donod_fast.selection.subset import Records

RECORD_BYTES = 4096
"""Memory for each chosen record that is sorted best first, roughly."""


class LargerThanMemory:
    """See :class:`Engine`."""

    name = "duckdb"

    def __init__(self, ranking: BigRanking, options: RankOptions) -> None:
        self._ranking, self._options = ranking, options

    @property
    def scored(self) -> int:
        return self._ranking.scored

    @property
    def left_out(self) -> Mapping[str, int]:
        return unhelped(self._ranking.left_out)

    @property
    def highest(self) -> float:
        return self._ranking.highest

    @property
    def following(self) -> Following | None:
        return self._ranking.following

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        most = self._options.memory // RECORD_BYTES if best_first else 0
        chosen = self._ranking.keep(
            keep=keep, don_threshold=don_threshold, don_quantile=don_quantile, best_first=best_first, most=most
        )
        groups = chosen.groups if self._options.by is not None else ()
        return Kept(chosen.rows if chosen.best_first is None else chosen.best_first, groups)

    def order(self) -> tuple[Any, Any]:
        return self._ranking.order()

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        from donod_fast.selection.explain import best_and_worst, check_extent

        check_extent(count, width)
        ranking, columns, ranks = self._ranking.ends(count)
        shown = best_and_worst(ranking, columns, corpus, count, width, encoding=encoding)
        return [replace(row, rank=rank) for row, rank in zip(shown, ranks, strict=True)]

    def ordered(self) -> Ordered:
        return Ordered(*self._ranking.ordered(), total=self._ranking.total)


__all__ = ["RECORD_BYTES", "LargerThanMemory"]
