"""The columns of a scores folder that ranking needs, at the folder's learning rate or another."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.ranking import ScoreColumns


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
        refuse_rounded(folder)
    if any(column.kind == "vector" for column in folder.signal_columns()):
        table = read_narrow(folder, ["row", *number_columns(folder)])  # vectors may take a hundred times the memory
    else:
        table = folder.table()
    return ScoreColumns.from_table(table, weight_norm=folder.manifest["model"]["weight_norm"], lr=lr, more=more)


def refuse_rounded(folder: ScoresFolder) -> None:
    """Refuse another learning rate for scores that depend on it. Raises InputError."""
    if folder.manifest["update"]["storage_dtype"] is not None:
        raise InputError(
            "--lr: these scores round the updated weights to a storage dtype, and rounding depends on the learning "
            "rate; score again with the learning rate that you want"
        )


__all__ = ["load_columns", "refuse_rounded"]
