"""Ranking in memory or past it: which of the two serves a command, behind one interface."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from donod_fast.big_ranking import BigRanking, GroupCount, RowSet
    from donod_fast.explain import ExplainedRow
    from donod_fast.ranking import Ranking, ScoreColumns
    from donod_fast.selection import Records
    from donod_fast.store import ScoresFolder

ENGINES = ("auto", "memory", "duckdb")

# Of the ranking in memory, measured: all columns of the parts, those that are ranked, their copies and sorts.
_BYTES_PER_ROW = 400
_BYTES_AT_LEAST = 300 << 20  # Python, PyTorch and Arrow
_RECORD_BYTES = 4096  # of a chosen record that is held, roughly

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class RankOptions:
    """What the options of a command say about the ranking.

    Attributes:
        method: one of ``ranking.METHODS``.
        weights: of DON and NOD.
        lr: rank as if scored at this rate; None for the folder's.
        seed: for ``random``.
        by: groups to keep a share of each.
        engine: one of :data:`ENGINES`.
        memory: bytes that the ranking may take.
        temp_dir: for what does not fit.
    """

    method: str
    weights: tuple[float, float]
    lr: float | None = None
    seed: int = 0
    by: str | None = None
    engine: str = "auto"
    memory: int = 2 << 30
    temp_dir: Path | None = None


@dataclass(frozen=True)
class Kept:
    """The rows to keep, best first where they are a list or a tensor; and by group, where groups were asked for."""

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
        """How many rows are ranked."""

    @property
    def highest(self) -> float:
        """The largest figure of merit."""

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        """As ``ranking.keep``; in order of rank if ``best_first``."""

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        """As ``explain.best_and_worst``."""


@contextmanager
def ranked(folder: ScoresFolder, options: RankOptions) -> Iterator[Engine]:
    """Rank the rows of a finished folder.

    Raises:
        InputError: a bad option.
        StoreError: the folder is unfinished or damaged.
    """
    if options.engine not in ENGINES:
        raise InputError(f"--engine must be one of {', '.join(ENGINES)}, got {options.engine!r}")
    if options.lr is not None:
        _refuse_rounded(folder)
    needed = folder.rows * _BYTES_PER_ROW + _BYTES_AT_LEAST
    if options.engine == "memory" and options.by is not None:
        raise InputError("--by needs the engine duckdb; leave --engine out")
    if options.engine == "memory" or (options.engine == "auto" and options.by is None and needed <= options.memory):
        yield _InMemory(folder, options)
        return
    from donod_fast.big_ranking import rank_parts

    with rank_parts(
        folder,
        options.method,
        weights=options.weights,
        seed=options.seed,
        lr=options.lr,
        by=options.by,
        memory=options.memory,
        temp_dir=options.temp_dir,
    ) as ranking:
        yield _PastMemory(ranking, options)


def load_columns(folder: ScoresFolder, lr: float | None = None) -> ScoreColumns:
    """The columns that ranking needs, at the folder's learning rate or another.

    Raises:
        InputError: another rate is asked of scores whose update is not the same at every rate.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.ranking import ScoreColumns

    if lr is not None:
        _refuse_rounded(folder)
    return ScoreColumns.from_table(folder.table(), weight_norm=folder.manifest["model"]["weight_norm"], lr=lr)


def parse_size(text: str) -> int:
    """Read ``"2GiB"``, ``"500MB"`` or a number of bytes.

    Raises:
        InputError: it does not read so.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B)?", text.strip(), re.IGNORECASE)
    unit = "" if found is None else (found[2] or "").upper()
    if found is None or unit not in _UNITS or float(found[1]) == 0:
        raise InputError(f"--memory {text!r} is no size; give for example 2GiB or 500MB")
    return int(float(found[1]) * _UNITS[unit])


class _InMemory:
    name = "memory"

    def __init__(self, folder: ScoresFolder, options: RankOptions) -> None:
        from donod_fast.ranking import rank

        self._columns = load_columns(folder, options.lr)
        self._ranking: Ranking = rank(self._columns, options.method, weights=options.weights, seed=options.seed)

    @property
    def scored(self) -> int:
        return len(self._ranking.order)

    @property
    def highest(self) -> float:
        return float(self._ranking.value.max())

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        from donod_fast.ranking import keep as keep_rows

        return Kept(keep_rows(self._ranking, keep=keep, don_threshold=don_threshold, don_quantile=don_quantile))

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        from donod_fast.explain import best_and_worst

        return best_and_worst(self._ranking, self._columns, corpus, count, width, encoding=encoding)


class _PastMemory:
    name = "duckdb"

    def __init__(self, ranking: BigRanking, options: RankOptions) -> None:
        self._ranking, self._options = ranking, options

    @property
    def scored(self) -> int:
        return self._ranking.scored

    @property
    def highest(self) -> float:
        return self._ranking.highest

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        most = self._options.memory // _RECORD_BYTES if best_first else 0
        chosen = self._ranking.keep(
            keep=keep, don_threshold=don_threshold, don_quantile=don_quantile, best_first=best_first, most=most
        )
        groups = chosen.groups if self._options.by is not None else ()
        return Kept(chosen.rows if chosen.best_first is None else chosen.best_first, groups)

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        from donod_fast.explain import best_and_worst

        ranking, columns, ranks = self._ranking.ends(count)
        shown = best_and_worst(ranking, columns, corpus, count, width, encoding=encoding)
        return [replace(row, rank=rank) for row, rank in zip(shown, ranks, strict=True)]


def _refuse_rounded(folder: ScoresFolder) -> None:
    if folder.manifest["update"]["storage_dtype"] is not None:
        raise InputError(
            "--lr: these scores round the updated weights to a storage dtype, which is not the same at "
            "every learning rate; score again with the rate you want"
        )


__all__ = ["ENGINES", "Engine", "Kept", "RankOptions", "load_columns", "parse_size", "ranked"]
