"""Columns of scores → ranking → rows to keep, on the CPU in float64. Ties are broken by row number.

Each method's preference, and its figure of merit (``Ranking.value``, higher is better):

- ``topsis``: closeness to (max DON, min NOD), in [0, 1], on columns divided by their size; the paper's method (A.5).
- ``don``: high DON first; the value is DON.
- ``nod``: low NOD first; the value is −NOD. The paper's §4.5 compares with selection by NOD alone but
  does not state the direction clearly; we use the direction of TOPSIS (low is good).
- ``weighted``: w_d · (DON − min)/(max − min) + w_n · (1 − (NOD − min)/(max − min)), weights scaled to
  sum to 1, min and max over the scored rows. A constant column gives 0 for every row.
- ``pareto``: non-dominated sorting for (max DON, min NOD), front by front, within a front by closeness;
  the value is −front, fronts are counted from 1. Rows with equal DON and NOD share a front.
- ``nodon``: the exact reverse of ``topsis``, worst first, that is, what DONOD would drop. Ties are broken by
  *descending* row number, so keeping 70 % of it gives what ``topsis`` at 30 % leaves out. The value is 1 − closeness.
- ``don-threshold``: as ``don``, but :func:`~donod_fast.selection.keeping.keep` cuts it by a value or a quantile of DON.
- ``random``: a permutation drawn from a seed; the value is a uniform number in [0, 1).
- ``loss``: low loss first; the value is −loss. GraNd, EL2N and similar criteria keep the *hard* samples;
  this baseline instead drops what the model finds least likely, the simplest detector of noise.

Every number column of the scores is also a method, and so are ``ifd`` and ``ifd-loss``; see ``column_methods.py``. In
``NAME-round-robin`` reference sets take turns; see ``round_robin.py``.
``keeping.py`` decides how much of a ranking is kept.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.scores import don_and_nod
from donod_fast.kernels.topsis import (
    DEFAULT_NORMALISE,
    ColumnConstants,
    check_normalise,
    column_constants,
    normalised_weights,
    topsis,
    topsis_from_constants,
)
from donod_fast.selection.column_methods import ColumnMethod, find_method
from donod_fast.selection.round_robin import take_turns
from donod_fast.selection.turn_names import turn_column, turn_columns

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ScoreColumns:
    """The columns of a table of scores that ranking needs: (n,) each, in any order of rows.

    Attributes:
        row: int64, 0-based position in the input.
        don: float64, delta of norm in units of ‖W‖; NaN if the row was not scored.
        nod: float64, norm of delta in units of ‖W‖; NaN if the row was not scored.
        loss: float64, nats; NaN if the row was not scored.
        more: other columns to rank by, by name, float64 each; NaN if a row has no value.

    Raises:
        InputError: shapes or dtypes that differ from the above.
    """

    row: Tensor
    don: Tensor
    nod: Tensor
    loss: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = {"don": self.don, "nod": self.nod, "loss": self.loss, **self.more}
        for name, column in {"row": self.row, **numbers}.items():
            dtype = torch.int64 if name == "row" else torch.float64
            if column.dtype != dtype or column.shape != (self.row.numel(),):
                raise InputError(
                    f"column {name} must be {dtype} of shape ({self.row.numel()},), "
                    f"got {column.dtype} of shape {tuple(column.shape)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that can be ranked by."""
        return ("don", "nod", "loss", *self.more)

    def column(self, name: str) -> Tensor:
        """One of :attr:`names`."""
        return self.more[name] if name in self.more else {"don": self.don, "nod": self.nod, "loss": self.loss}[name]

    @staticmethod
    def from_table(
        table: pa.Table,
        *,
        weight_norm: float | None = None,
        lr: float | None = None,
        more: Collection[str] | None = None,
    ) -> ScoreColumns:
        """Take the columns from a scores table; with ``lr`` and ‖W‖, DON and NOD are those at that learning rate.

        Args:
            table: the rows of a scores folder.
            weight_norm: ‖W‖.
            lr: the learning rate.
            more: which other columns to take; None for all that are numbers.

        Raises:
            InputError: see :func:`rescale_to_lr`.
        """

        def column(name: str) -> Tensor:
            return torch.from_numpy(table.column(name).to_numpy().copy())

        don, nod = column("don"), column("nod")
        if lr is not None and weight_norm is not None:
            don, nod = rescale_to_lr(column("weight_dot_update"), column("update_norm"), weight_norm, lr)
        names = number_names(table.schema) if more is None else more
        others = {name: column(name).double() for name in names if name not in ("row", "don", "nod", "loss")}
        return ScoreColumns(column("row"), don, nod, column("loss"), others)


@dataclass(frozen=True)
class Ranking:
    """Scored rows, best first.

    Attributes:
        method: one of :data:`OWN_METHODS`, or a name of ``column_methods.py``.
        order: (n_scored,) int64 row numbers, best first.
        value: (n_scored,) float64 figure of merit aligned with ``order``, never increasing.
        total: number of all rows; ``total - len(order)`` were not scored or were left out.
        left_out: number of rows that have scores but are not ranked by the method: IFD ≥ 1.
    """

    method: str
    order: Tensor
    value: Tensor
    total: int
    left_out: int = 0


def rank(
    columns: ScoreColumns,
    method: str = "topsis",
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    seed: int = 0,
) -> Ranking:
    """Rank the scored rows: DON and NOD are numbers, and for ``loss`` and other columns that column, too.

    Args:
        columns: the table of scores.
        method: one of :data:`OWN_METHODS` (described at the top of this module), or a name of ``column_methods.py``.
        weights: weights of DON and NOD, for ``topsis``, ``nodon``, ``weighted`` and for ties of ``pareto``.
        normalise: what ``topsis`` divides the columns by, see :mod:`donod_fast.kernels.topsis`; also for ``nodon`` and
            ties of ``pareto``.
        seed: for ``random``, 0 ≤ seed < 2**63; the draw does not depend on the device or the order of ``columns``.

    Raises:
        InputError: unknown method, missing column, bad weights, normalisation or seed, an infinite score.
    """
    if turn_column(method) is not None:
        normalised_weights(weights)
        return _rank_by_turns(columns, method)
    by_column = find_method(method, columns.names)
    if by_column is not None:
        normalised_weights(weights)
        check_normalise(normalise)
        return _rank_by_column(columns, by_column)
    row, by_row = columns.row.cpu().sort(stable=True)
    # + 0.0 turns −0.0 into 0.0, so that no sort can tell the two apart
    don, nod, loss = (column.cpu()[by_row] + 0.0 for column in (columns.don, columns.nod, columns.loss))
    scored = ~(don.isnan() | nod.isnan())
    if method == "loss":
        scored &= ~loss.isnan()
    row, don, nod, loss = row[scored], don[scored], nod[scored], loss[scored]
    for name, column in (("don", don), ("nod", nod), ("loss", loss)):
        if column.isinf().any():
            raise InputError(f"column {name} has an infinite score, at row {int(row[column.isinf()][0])}")

    # computed for every method: it checks weights and normalisation
    closeness = topsis(don, nod, weights=weights, normalise=normalise)
    if method in ("topsis", "nodon"):
        value = closeness
    elif method == "pareto":
        value = -pareto_fronts(don, nod).double()
    else:
        constants = (column_constants(don), column_constants(nod)) if method == "weighted" and len(row) else None
        draw = uniform_draws(seed) if method == "random" else None
        value = merit(method, don, nod, loss, weights=weights, normalise=normalise, constants=constants, draw=draw)
    best = _best_first(value)
    if method == "pareto":
        by_closeness = _best_first(closeness)
        best = by_closeness[_best_first(value[by_closeness])]
    if method == "nodon":
        best, value = best.flip(0), 1 - value
    return Ranking(method, order=row[best], value=value[best], total=len(columns.row))


def number_names(schema: pa.Schema) -> list[str]:
    """Number columns of a scores table, without ``row``."""
    import pyarrow.types as types

    return [
        entry.name
        for entry in schema
        if entry.name != "row" and (types.is_floating(entry.type) or types.is_integer(entry.type))
    ]


def _rank_by_column(columns: ScoreColumns, by: ColumnMethod) -> Ranking:
    row, by_row = columns.row.cpu().sort(stable=True)
    don, nod, column = (one.cpu()[by_row] + 0.0 for one in (columns.don, columns.nod, columns.column(by.column)))
    scored = ~(don.isnan() | nod.isnan() | column.isnan())
    row, don, nod, column = row[scored], don[scored], nod[scored], column[scored]
    for name, one in (("don", don), ("nod", nod), (by.column, column)):
        if one.isinf().any():
            raise InputError(f"column {name} has an infinite score, at row {int(row[one.isinf()][0])}")
    there = ~by.left_out(column)
    row, value = row[there], by.value(column[there])
    best = _best_first(value)
    return Ranking(by.name, row[best], value[best], len(columns.row), len(there) - len(row))


def _rank_by_turns(columns: ScoreColumns, method: str) -> Ranking:
    row, by_row = columns.row.cpu().sort(stable=True)
    don, nod = (one.cpu()[by_row] for one in (columns.don, columns.nod))
    scored = ~(don.isnan() | nod.isnan())
    row = row[scored]
    turns = {name: columns.column(name).cpu()[by_row][scored] for name in turn_columns(method, columns.names)}
    for name, one in {"don": don[scored], "nod": nod[scored], **turns}.items():
        if one.isinf().any():
            raise InputError(f"column {name} has an infinite score, at row {int(row[one.isinf()][0])}")
    order, value = take_turns(list(turns.values()))
    return Ranking(method, row[order], value, len(columns.row))


def merit(
    method: str,
    don: Tensor,
    nod: Tensor,
    loss: Tensor | None,
    *,
    weights: tuple[float, float],
    normalise: str = DEFAULT_NORMALISE,
    constants: tuple[ColumnConstants, ColumnConstants] | None,
    draw: Callable[[int], Tensor] | None,
) -> Tensor:
    """Figures of merit (n,) of some scored rows, given constants over all of them.

    Elementwise: the value of a row does not depend on other rows. ``nodon`` has the value of ``topsis``.

    Args:
        method: any method except ``pareto``, which compares all rows.
        don: (n,) float64.
        nod: (n,) float64.
        loss: (n,) float64, for ``loss``.
        weights: of DON and NOD, for ``topsis``, ``nodon`` and ``weighted``.
        normalise: what ``topsis`` and ``nodon`` divide the columns by.
        constants: constants of DON and NOD over all scored rows, for the same methods; may be None without rows.
        draw: draws the numbers of ``random`` for the next rows (:func:`uniform_draws`).
    """
    match method:
        case "topsis" | "nodon" if constants is not None:
            return topsis_from_constants(don, nod, *constants, weights=weights, normalise=normalise)
        case "weighted" if constants is not None:
            return _weighted_sum(don, nod, weights, constants)
        case "nod":
            return -nod
        case "loss" if loss is not None:
            return -loss
        case "random" if draw is not None:
            return draw(len(don))
        case _:
            return don


def rescale_to_lr(
    weight_dot_update: Tensor,  # (n,) ⟨W,U⟩
    update_norm: Tensor,  # (n,) ‖U‖
    weight_norm: float,  # ‖W‖
    lr: float,
) -> tuple[Tensor, Tensor]:
    """DON and NOD, (n,) float64 each, at another learning rate η, computed from the stored scalars.

    NOD = η‖U‖ and DON = (2η⟨W,U⟩ − η²‖U‖²)/(‖W‖ + ‖W′‖), ‖W′‖² = ‖W‖² − 2η⟨W,U⟩ + η²‖U‖². Exact for
    every update U that does not depend on η: SGD (with weight decay too), sign, AdamW from fresh state.
    The quotient is ‖W‖ − ‖W′‖ without the cancellation. NaN stays NaN; if W and W′ are both zero,
    DON is 0.

    Raises:
        InputError: lr or weight_norm negative or not finite, shapes that differ.
    """
    for name, number in (("lr", lr), ("weight_norm", weight_norm)):
        if not (math.isfinite(number) and number >= 0):
            raise InputError(f"{name} must be finite and not negative, got {number}")
    if weight_dot_update.shape != update_norm.shape:
        raise InputError(
            f"weight_dot_update and update_norm must have the same shape, "
            f"got {tuple(weight_dot_update.shape)} and {tuple(update_norm.shape)}"
        )
    return don_and_nod(weight_dot_update.double(), update_norm.double(), weight_norm, lr)


def pareto_fronts(don: Tensor, nod: Tensor) -> Tensor:
    """Front of each sample, (n,) int64 from 1, under non-dominated sorting for (max DON, min NOD).

    A sample dominates another if it is no worse in both values and better in at least one. No sample dominates those of
    front 1; no sample dominates those of front k once fronts 1 to k − 1 are removed. A sweep in O(n log n): sorted
    by falling DON, then by rising NOD, all samples that dominate a sample come before it, and front k holds one of them
    exactly if the least NOD seen in it is no larger. ``least`` is sorted, so bisection finds the front.
    """
    by_nod = nod.argsort(stable=True)
    sweep = by_nod[don[by_nod].argsort(descending=True, stable=True)]
    least: list[float] = []
    fronts: list[int] = []
    previous: tuple[float, float] | None = None
    for point in zip(don[sweep].tolist(), nod[sweep].tolist(), strict=True):
        if point != previous:  # equal samples do not dominate each other
            front = bisect_right(least, point[1])
            if front == len(least):
                least.append(point[1])
            else:
                least[front] = point[1]
        fronts.append(front + 1)
        previous = point
    result = torch.empty(len(fronts), dtype=torch.int64)
    result[sweep] = torch.tensor(fronts, dtype=torch.int64)
    return result


def _best_first(value: Tensor) -> Tensor:
    """Positions sorted by falling value; equal values keep their order."""
    return value.argsort(descending=True, stable=True)


def _weighted_sum(
    don: Tensor, nod: Tensor, weights: tuple[float, float], constants: tuple[ColumnConstants, ColumnConstants]
) -> Tensor:
    largest = max(map(float, weights))  # as in TOPSIS: no overflow, only the ratio counts
    don_weight, nod_weight = (float(weight) / largest for weight in weights)
    of_don, of_nod = constants
    don_part = don_weight * _unit_range(don, of_don.low, of_don.high)
    nod_part = nod_weight * _unit_range(-nod, -of_nod.high, -of_nod.low)
    return (don_part + nod_part) / (don_weight + nod_weight)


def _unit_range(column: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Min–max normalised to [0, 1]; zeros for a constant column. 1 − u(NOD) is u(−NOD)."""
    halved, low, high = column / 2, low / 2, high / 2  # a range beyond the largest number must not overflow
    return torch.zeros_like(column) if low == high else (halved - low) / (high - low)


def uniform_draws(seed: int) -> Callable[[int], Tensor]:
    """Make a function that draws the values of ``random`` for the next scored rows, in the order of row numbers.

    Raises:
        InputError: the seed is not an integer, or out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be an integer from 0 to 2**63 - 1, got {seed!r}")
    generator = torch.Generator("cpu").manual_seed(seed)
    return lambda count: torch.rand(count, generator=generator, dtype=torch.float64)


__all__ = [
    "Ranking",
    "ScoreColumns",
    "merit",
    "number_names",
    "pareto_fronts",
    "rank",
    "rescale_to_lr",
    "uniform_draws",
]
