"""Which methods can compute the value of each row alone, and the constants that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from donod_fast.errors import InputError
from donod_fast.scores.part_summary import ColumnSummary, combined
from donod_fast.selection.column_methods import OWN_METHODS, ColumnMethod, find_method
from donod_fast.selection.out_of_core.loading import number_columns, scored_rows
from donod_fast.selection.turn_names import turn_column

if TYPE_CHECKING:
    from donod_fast.kernels.topsis import ColumnConstants
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.out_of_core.groups import Groups

_WITH_CONSTANTS = ("topsis", "nodon", "weighted")


def check_method(folder: ScoresFolder, method: str) -> ColumnMethod | None:
    """Refuse a method that cannot be computed in parts; return the column of a method that ranks by one.

    Raises:
        InputError: the method is unknown, its column is missing, or the method needs all rows in memory.
        StoreError: a part is damaged.
    """
    if method == "pareto":
        raise InputError(
            "method pareto compares all rows with each other and needs them in memory; use topsis, or rank in memory "
            "(--engine memory, without --by)"
        )
    if turn_column(method) is not None:
        raise InputError(
            f"method {method} lets reference sets take turns; a turn depends on all before it, so it needs all rows in "
            "memory; raise --memory, or rank in memory (--engine memory, without --by)"
        )
    return None if method in OWN_METHODS else find_method(method, number_columns(folder))


def constants_of(
    folder: ScoresFolder, method: str, groups: Groups, lr: float | None, normalise: str
) -> tuple[ColumnConstants, ColumnConstants] | None:
    """Constants of DON and NOD over all scored rows, None if the method needs none.

    They come from the footers of the parts; at another learning rate, from one pass over the rows, with sums that
    depend only on the rows. The normalisation ``sum`` also reads the rows of parts of earlier releases. The footers are
    always read: this checks that the folder is finished and consistent.

    Raises:
        InputError: a score is infinite.
        StoreError: the folder is unfinished or damaged.
    """
    constants = folder.constants(sums=normalise == "sum" and lr is None)
    if method not in _WITH_CONSTANTS or lr is None:
        return constants if method in _WITH_CONSTANTS else None
    don, nod = [], []
    for rows in scored_rows(folder, groups, lr=lr):
        don.append(ColumnSummary.of(rows.don.numpy()))
        nod.append(ColumnSummary.of(rows.nod.numpy()))
    return combined(don), combined(nod)


__all__ = ["check_method", "constants_of"]
