"""The interface of the ranking engines, and what they return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from donod_fast.selection.explain import ExplainedRow
    from donod_fast.selection.following import Following
    from donod_fast.selection.out_of_core import GroupCount, RowSet
    from donod_fast.selection.similar_sets import SimilarSets
    from donod_fast.selection.subset import Records

UNHELPED = "IFD ≥ 1"


@dataclass(frozen=True)
class Kept:
    """The rows to keep.

    Attributes:
        rows: best first if a list or a tensor.
        groups: counts of its groups or clusters, if any.
        sets: the sets of ``--dedupe`` and of ``--diversify``, if any.
        passed_over: number of rows that were left out as duplicates although rows below them are kept.
        missing: number of rows that were asked for, for which no rows without duplicates are left.
    """

    rows: Tensor | RowSet | list[int]
    groups: tuple[GroupCount, ...] = ()
    sets: tuple[SimilarSets, ...] = ()
    passed_over: int = 0
    missing: int = 0

    def as_json(self) -> dict[str, Any]:
        """The sets in counts, if there are any."""
        if not self.sets:
            return {}
        sets = [one.as_json() for one in self.sets]
        return {"sets": sets, "passed_over": self.passed_over, "missing": self.missing}


@dataclass(frozen=True)
class Ordered:
    """All ranked rows in order.

    Attributes:
        rows: (n,) int64 row numbers, best first.
        groups: (n,) int32 positions in ``names``; None if all rows are one group.
        names: the groups in order of appearance.
        all_rows: number of rows of each group, scored or not.
        scored: number of ranked rows of each group.
        total: number of all rows of the folder.
    """

    rows: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int32] | None
    names: tuple[str | None, ...]
    all_rows: tuple[int, ...]
    scored: tuple[int, ...]
    total: int


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

    def order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """All ranked rows, best first, and their figures of merit: (n,) each.

        Raises:
            InputError: the method chooses rows and does not rank them.
        """

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        """See ``explain.best_and_worst``."""


class OrderedEngine(Engine, Protocol):
    """An engine that can list all ranked rows."""

    def ordered(self) -> Ordered:
        """All ranked rows in order, some 20 bytes a row."""


def refuse_ranking(method: str) -> NoReturn:
    """Refuse to rank by a method that only chooses rows. Raises InputError."""
    raise InputError(f"method {method} chooses rows and does not rank them; select rows by it (`donod-fast select`)")


def unhelped(rows: int) -> Mapping[str, int]:
    """The reason that ``left_out`` names for rows with an IFD of 1 or more, if there are any."""
    return {UNHELPED: rows} if rows else {}


__all__ = ["UNHELPED", "Engine", "Kept", "Ordered", "OrderedEngine", "refuse_ranking", "unhelped"]
