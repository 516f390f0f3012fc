"""One interface for the two ranking engines: in memory, and larger than memory (DuckDB); and the choice of engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from donod_fast.errors import InputError
from donod_fast.selection.settings import (
    BY_EMBEDDINGS,
    CLUSTER_BALANCED,
    ENGINES,
    KCENTER,
    KMEANS_IFD,
    RankOptions,
    parse_size,
)

if TYPE_CHECKING:
    from torch import Tensor

    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.coverage import Covering
    from donod_fast.selection.explain import ExplainedRow
    from donod_fast.selection.following import Following
    from donod_fast.selection.kmeans_ifd import Chosen
    from donod_fast.selection.out_of_core import BigRanking, GroupCount, RowSet
    from donod_fast.selection.ranking import Ranking, ScoreColumns
    from donod_fast.selection.subset import Records

UNHELPED = "IFD ≥ 1"

# Memory use of ranking in memory, measured: all columns of the parts, the ranked ones, their copies and sorts.
_BYTES_PER_ROW = 400
_BYTES_PER_SIGNAL = 24  # for each further number column
_BYTES_AT_LEAST = 300 << 20  # Python, PyTorch and Arrow
_RECORD_BYTES = 4096  # for each chosen record in memory, roughly


@dataclass(frozen=True)
class Kept:
    """The rows to keep (best first if a list or a tensor), and the counts of its groups or clusters, if any."""

    rows: Tensor | RowSet | list[int]
    groups: tuple[GroupCount, ...] = ()


class Engine(Protocol):
    """A ranking of all rows of a folder.

    Attributes:
        name: ``memory`` or ``duckdb``.
    """

    name: str

    @property
    def scored(self) -> int:
        """Number of ranked rows."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Number of rows that have scores but are not ranked, by reason: ``IFD ≥ 1``."""

    @property
    def highest(self) -> float:
        """The largest figure of merit."""

    @property
    def following(self) -> Following | None:
        """How far TOPSIS follows one column; None for other methods, and for fewer than three rows."""

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        """See ``keeping.keep``; the rows are in order of rank if ``best_first``."""

    def order(self) -> tuple[Any, Any]:
        """All ranked rows, best first, and their figures of merit: NumPy's int64 and float64, (n,) each.

        Raises:
            InputError: the method chooses rows and does not rank them.
        """

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        """See ``explain.best_and_worst``."""


@contextmanager
def ranked(folder: ScoresFolder, options: RankOptions) -> Iterator[Engine]:
    """Rank the rows of a finished folder.

    Raises:
        InputError: a bad option.
        StoreError: the folder is unfinished or damaged.
    """
    if options.lr is not None:
        _refuse_rounded(folder)
    if options.checkpoint and (options.method in BY_EMBEDDINGS or options.engine == "duckdb" or options.by is not None):
        raise InputError(
            "--checkpoint averages a column of all rows in memory; remove --by and --engine duckdb, rank by a column"
        )
    if options.method == KMEANS_IFD:
        yield _Clusters(folder, options)
        return
    if options.method in (KCENTER, CLUSTER_BALANCED):
        yield _Covering(folder, options)
        return
    signals = sum(column.kind == "number" for entry in folder.signals for column in entry.columns)
    needed = folder.rows * (_BYTES_PER_ROW + _BYTES_PER_SIGNAL * signals) + _BYTES_AT_LEAST
    if options.engine == "memory" and options.by is not None:
        raise InputError("--by needs the engine duckdb; remove --engine memory")
    if options.engine == "memory" or (options.engine == "auto" and options.by is None and needed <= options.memory):
        yield _InMemory(folder, options)
        return
    from donod_fast.selection.out_of_core import rank_parts

    if options.checkpoint:
        raise InputError(
            f"--checkpoint averages a column of all rows in memory, which take about {needed / 2**30:.2g} GiB; raise "
            "--memory"
        )
    with rank_parts(
        folder,
        options.method,
        weights=options.weights,
        normalise=options.normalise,
        seed=options.seed,
        lr=options.lr,
        by=options.by,
        memory=options.memory,
        temp_dir=options.temp_dir,
    ) as ranking:
        yield _LargerThanMemory(ranking, options)


def load_columns(folder: ScoresFolder, lr: float | None = None, more: Collection[str] | None = None) -> ScoreColumns:
    """Load the columns that ranking needs, at the folder's learning rate or another.

    Args:
        folder: a finished folder.
        lr: the learning rate; None for the folder's.
        more: number columns to load besides DON, NOD and the loss; None for all.

    Raises:
        InputError: another rate is requested, but the update depends on the rate.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.selection.out_of_core.loading import number_columns, read_narrow
    from donod_fast.selection.ranking import ScoreColumns

    if lr is not None:
        _refuse_rounded(folder)
    if any(column.kind == "vector" for column in folder.signal_columns()):
        table = read_narrow(folder, ["row", *number_columns(folder)])  # vectors may take a hundred times the memory
    else:
        table = folder.table()
    return ScoreColumns.from_table(table, weight_norm=folder.manifest["model"]["weight_norm"], lr=lr, more=more)


class _InMemory:
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
        return _unhelped(self._ranking.left_out)

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

    def order(self) -> tuple[Any, Any]:
        return self._ranking.order.numpy(), self._ranking.value.numpy()

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        from donod_fast.selection.explain import best_and_worst

        return best_and_worst(self._ranking, self._columns, corpus, count, width, encoding=encoding)


class _LargerThanMemory:
    name = "duckdb"

    def __init__(self, ranking: BigRanking, options: RankOptions) -> None:
        self._ranking, self._options = ranking, options

    @property
    def scored(self) -> int:
        return self._ranking.scored

    @property
    def left_out(self) -> Mapping[str, int]:
        return _unhelped(self._ranking.left_out)

    @property
    def highest(self) -> float:
        return self._ranking.highest

    @property
    def following(self) -> Following | None:
        return self._ranking.following

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        most = self._options.memory // _RECORD_BYTES if best_first else 0
        chosen = self._ranking.keep(
            keep=keep, don_threshold=don_threshold, don_quantile=don_quantile, best_first=best_first, most=most
        )
        groups = chosen.groups if self._options.by is not None else ()
        return Kept(chosen.rows if chosen.best_first is None else chosen.best_first, groups)

    def order(self) -> tuple[Any, Any]:
        return self._ranking.order()

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        from donod_fast.selection.explain import best_and_worst

        ranking, columns, ranks = self._ranking.ends(count)
        shown = best_and_worst(ranking, columns, corpus, count, width, encoding=encoding)
        return [replace(row, rank=rank) for row, rank in zip(shown, ranks, strict=True)]


class _Clusters:
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
            _refuse_ranking(KMEANS_IFD)
        return self._chosen

    def order(self) -> tuple[Any, Any]:
        _refuse_ranking(KMEANS_IFD)


class _Covering:
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
            _refuse_ranking(self._options.method)
        return self._covering

    def order(self) -> tuple[Any, Any]:
        _refuse_ranking(self._options.method)


def _refuse_ranking(method: str) -> NoReturn:
    raise InputError(f"method {method} chooses rows and does not rank them; select rows by it (`donod-fast select`)")


def _averaged(columns: ScoreColumns, folder: ScoresFolder, options: RankOptions) -> ScoreColumns:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.checkpoints import over_checkpoints
    from donod_fast.selection.column_methods import find_method

    by = find_method(options.method, columns.names)
    if by is None:
        raise InputError(f"--checkpoint averages a column, such as less_head; method {options.method} ranks by others")
    return over_checkpoints(columns, by.column, folder, [ScoresFolder.open(one) for one in options.checkpoint])


def _unhelped(rows: int) -> Mapping[str, int]:
    return {UNHELPED: rows} if rows else {}


def _refuse_rounded(folder: ScoresFolder) -> None:
    if folder.manifest["update"]["storage_dtype"] is not None:
        raise InputError(
            "--lr: these scores round the updated weights to a storage dtype, and rounding depends on the learning "
            "rate; score again with the learning rate that you want"
        )


__all__ = ["ENGINES", "KMEANS_IFD", "Engine", "Kept", "RankOptions", "load_columns", "parse_size", "ranked"]
