"""Which rows of a host's whole table are kept, from the columns that scoring gave them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from donod_fast.adapters.columns import DON, LOSS, NOD, PREFIX, STATUS
from donod_fast.errors import InputError
from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.selection.keeping import checked_share
from donod_fast.selection.keeping import keep as keep_best
from donod_fast.selection.ranking import ScoreColumns, rank

_OWN = {DON: "don", NOD: "nod", LOSS: "loss"}


@dataclass(frozen=True, slots=True)
class KeptRows:
    """The best rows of a table.

    Attributes:
        rows: their numbers, in the order of the table.
        value: their figure of merit by the method, in the same order; for ``topsis`` the closeness in [0, 1].
        ranked: rows that the method ranks: all scored rows, less those that it leaves out.
    """

    rows: tuple[int, ...]
    value: tuple[float, ...]
    ranked: int


def kept_rows(
    columns: Sequence[Mapping[str, Any]],
    keep: float | int | str,
    *,
    method: str = "topsis",
    weights: Sequence[float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    seed: int = 0,
) -> KeptRows:
    """Rank all rows of a table and keep the best, as ``donod-fast select`` does.

    DON and NOD by the learning rate give the same order as DON and NOD.

    Args:
        columns: for each row the columns of :func:`donod_fast.adapters.columns.host_columns`.
        keep: a fraction of the ranked rows (0.3, "30%") or a count (300).
        method: a method of ``donod-fast select`` that takes ``keep``.
        weights: weights of DON and NOD.
        normalise: what TOPSIS divides the columns by.
        seed: for the method ``random``.

    Raises:
        InputError: rows without the columns, no scored row, an unknown method, or a wrong value.
    """
    for at, row in enumerate(columns):
        if lacking := [name for name in (STATUS, DON, NOD) if name not in row]:
            raise InputError(f"row {at} has no column {lacking[0]}; score the rows first")
    if len(tuple(weights)) != 2:
        raise InputError(f"weights are two numbers, of DON and of NOD; got {weights!r}")
    pair = (float(weights[0]), float(weights[1]))
    numbers = _numbers(columns)
    don, nod, loss = (numbers.pop(name) for name in ("don", "nod", "loss"))
    found = ScoreColumns(torch.arange(len(columns)), don, nod, loss, numbers)
    ranking = rank(found, method, weights=pair, normalise=normalise, seed=seed)
    kept = keep_best(ranking, keep=checked_share(keep)).tolist()
    value = dict(zip(ranking.order.tolist(), ranking.value.tolist(), strict=True))
    rows = tuple(sorted(kept))
    return KeptRows(rows, tuple(value[row] for row in rows), len(ranking.order))


def _numbers(columns: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The columns of numbers by their names in a scores folder; NaN where a row has no number."""
    names = dict.fromkeys(name for row in columns for name, value in row.items() if _is_number_of_ours(name, value))
    names |= dict.fromkeys(_OWN)
    found = {}
    for name in names:
        given = (row.get(name) for row in columns)
        values = [math.nan if value is None else float(value) for value in given]
        found[_OWN.get(name, name.removeprefix(PREFIX))] = torch.tensor(values, dtype=torch.float64)
    return found


def _is_number_of_ours(name: str, value: Any) -> bool:
    return name.startswith(PREFIX) and isinstance(value, int | float) and not isinstance(value, bool)


__all__ = ["KeptRows", "kept_rows"]
