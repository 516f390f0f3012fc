"""``kcenter`` and ``cluster-balanced``: they choose rows and do not rank the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError
from donod_fast.selection.rankers.columns import load_columns
from donod_fast.selection.rankers.interface import Kept, refuse_ranking
from donod_fast.selection.settings import KCENTER, RankOptions

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.coverage import Covering
    from donod_fast.selection.explain import ExplainedRow
    from donod_fast.selection.following import Following
    from donod_fast.selection.subset import Records


class CoveringRows:
    """``kcenter`` and ``cluster-balanced``: they choose rows and do not rank the others."""

    name = "memory"

    def __init__(self, folder: ScoresFolder, options: RankOptions) -> None:
        from donod_fast.selection.column_methods import find_method
        from donod_fast.selection.embeddings import check_embeddings, read_embeddings
        from donod_fast.selection.out_of_core.loading import number_columns

        method = options.method
        if options.by is not None:
            raise InputError(f"method {method} spreads its rows over all embeddings; remove --by")
        if options.engine == "duckdb":
            raise InputError(
                f"method {method} needs the embeddings in memory, because each choice depends on all others; remove "
                "--engine duckdb"
            )
        check_embeddings(folder, options.embedding_model, method)
        self._options = options
        self._covering: Covering | None = None
        by = None if options.within is None else find_method(options.within, number_columns(folder))
        if options.within is not None and by is None:
            raise InputError(f"--within takes a column of the scores, such as loss@low; {options.within} is a method")
        self._columns = load_columns(folder, options.lr, () if by is None else (by.column,))
        scored = ~(self._columns.don.isnan() | self._columns.nod.isnan()).numpy()
        self._rows = self._columns.row.numpy()[scored]
        self._value = None
        if by is not None:
            column = self._columns.column(by.column)
            self._value = by.value(column).masked_fill(by.left_out(column), float("nan")).numpy()[scored]
        self._embeddings = read_embeddings(
            folder, self._rows, scored[scored], method, options.embedding_model, memory=options.memory
        )

    @property
    def scored(self) -> int:
        return self._kept().candidates

    @property
    def left_out(self) -> Mapping[str, int]:
        found = self._kept()
        reasons = {"no embedding": found.without_embedding, f"no {self._options.within}": found.without_value}
        return {reason: rows for reason, rows in reasons.items() if rows}

    @property
    def highest(self) -> float:
        return float(self._kept().value.max())

    @property
    def following(self) -> Following | None:
        return None

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        from donod_fast.selection.coverage import cluster_balanced, k_center
        from donod_fast.selection.out_of_core import GroupCount

        options = self._options
        if keep is None or don_threshold is not None or don_quantile is not None:
            raise InputError(
                f"method {options.method} takes --keep; --don-threshold and --don-quantile are for don-threshold"
            )
        if options.method == KCENTER:
            found = k_center(self._rows, self._embeddings, keep, seed=options.seed)
        else:
            found = cluster_balanced(
                self._rows,
                self._embeddings,
                keep,
                clusters=options.clusters,
                value=self._value,
                seed=options.seed,
            )
        self._covering = found
        groups = [
            GroupCount(str(number), cluster.rows, cluster.usable, cluster.kept)
            for number, cluster in enumerate(found.clusters)
        ]
        return Kept(found.rows.tolist(), tuple(groups))

    def order(self) -> tuple[Any, Any]:
        refuse_ranking(self._options.method)

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        import torch

        from donod_fast.selection.explain import best_and_worst
        from donod_fast.selection.ranking import Ranking

        found = self._kept()
        rows, value = torch.from_numpy(found.rows), torch.from_numpy(found.value)
        ranking = Ranking(self._options.method, rows, value, len(self._columns.row))
        return best_and_worst(ranking, self._columns, corpus, count, width, encoding=encoding)

    def _kept(self) -> Covering:
        if self._covering is None:
            refuse_ranking(self._options.method)
        return self._covering


__all__ = ["CoveringRows"]
