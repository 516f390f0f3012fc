"""K-Means + IFD: it chooses rows but does not rank the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError
from donod_fast.selection.rankers.columns import load_columns
from donod_fast.selection.rankers.interface import UNHELPED, Kept, refuse_ranking
from donod_fast.selection.settings import KMEANS_IFD, RankOptions

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.explain import ExplainedRow
    from donod_fast.selection.following import Following
    from donod_fast.selection.kmeans_ifd import Chosen
    from donod_fast.selection.subset import Records


class Clusters:
    """K-Means + IFD: it chooses rows but does not rank the others."""

    name = "memory"

    def __init__(self, folder: ScoresFolder, options: RankOptions) -> None:
        from donod_fast.selection.kmeans_ifd import read_questions

        if options.by is not None:
            raise InputError(f"method {KMEANS_IFD} keeps a share of each of its clusters; remove --by")
        if options.engine == "duckdb":
            raise InputError(f"method {KMEANS_IFD} needs the embeddings in memory; remove --engine duckdb")
        self._options = options
        self._questions = read_questions(folder, options.embedding_model, memory=options.memory)
        self._chosen: Chosen | None = None
        self._columns = load_columns(folder, options.lr, ())

    @property
    def scored(self) -> int:
        return sum(cluster.helped for cluster in self._kept().clusters)

    @property
    def left_out(self) -> Mapping[str, int]:
        chosen = self._kept()
        reasons = {
            UNHELPED: chosen.unhelped,
            "no IFD": chosen.without_ifd,
            "no embedding": chosen.without_embedding,
        }
        return {reason: rows for reason, rows in reasons.items() if rows}

    @property
    def highest(self) -> float:
        return float(self._kept().ifd.max())

    @property
    def following(self) -> Following | None:
        return None

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        from donod_fast.selection.kmeans_ifd import KEEP, choose
        from donod_fast.selection.out_of_core import GroupCount

        if don_threshold is not None or don_quantile is not None:
            raise InputError(
                f"method {KMEANS_IFD} takes --keep; --don-threshold and --don-quantile are for don-threshold"
            )
        questions = self._questions
        self._chosen = choose(
            questions.rows,
            questions.embeddings,
            questions.ifd,
            clusters=self._options.clusters,
            keep=KEEP if keep is None else keep,  # a count is refused by name
        )
        groups = [
            GroupCount(str(number), cluster.rows, cluster.helped, cluster.kept)
            for number, cluster in enumerate(self._chosen.clusters)
        ]
        return Kept(self._chosen.rows.tolist(), tuple(groups))

    def order(self) -> tuple[Any, Any]:
        refuse_ranking(KMEANS_IFD)

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        import torch

        from donod_fast.selection.explain import best_and_worst
        from donod_fast.selection.ranking import Ranking

        chosen = self._kept()
        rows, ifd = torch.from_numpy(chosen.rows), torch.from_numpy(chosen.ifd)
        ranking = Ranking(KMEANS_IFD, rows, ifd, len(self._columns.row))
        return best_and_worst(ranking, self._columns, corpus, count, width, encoding=encoding)

    def _kept(self) -> Chosen:
        if self._chosen is None:
            refuse_ranking(KMEANS_IFD)
        return self._chosen


__all__ = ["Clusters"]
