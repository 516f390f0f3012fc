"""A column over several checkpoints of a model: the mean with the learning rates as weights, as LESS adds them.

Score the same data once for each checkpoint, each into its own folder, with ``--lr`` set to the mean learning rate of
its epoch. Then rank one folder with the others as ``--checkpoint``:

    value = Σ_k lr_k · column_k / Σ_k lr_k

A row without a value at one of the checkpoints has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from donod_fast.errors import InputError
from donod_fast.selection.out_of_core.loading import read_narrow
from donod_fast.selection.ranking import ScoreColumns

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder


def over_checkpoints(
    columns: ScoreColumns, column: str, folder: ScoresFolder, others: Sequence[ScoresFolder]
) -> ScoreColumns:
    """The columns with one of them replaced by its weighted mean over checkpoints.

    Args:
        columns: those of ``folder``.
        column: a column of a further criterion.
        folder: scores of one checkpoint.
        others: scores of the others.

    Raises:
        InputError: the folders are not of the same data, a folder or a model is named twice, or one has no such column
            or one that was made with other settings.
        StoreError: a folder is unfinished or damaged.
    """
    if column not in columns.more or column not in _owners(folder):
        raise InputError(f"--checkpoint averages a column of a further criterion (such as less_head); got {column}")
    _refuse_unlike(column, [folder, *others])
    row, by_row = columns.row.sort(stable=True)
    total = _rate(folder) * columns.more[column][by_row]
    for other in others:
        table = read_narrow(other, ["row", column])
        theirs, order = torch.from_numpy(table.column("row").to_numpy().copy()).sort(stable=True)
        if not torch.equal(row, theirs):
            raise InputError(f"{other.name} does not have the rows of {folder.name}; score the same data with it")
        total += _rate(other) * torch.from_numpy(table.column(column).to_numpy().copy())[order]
    mean = torch.empty_like(total)
    mean[by_row] = total / sum(_rate(one) for one in (folder, *others))
    return replace(columns, more={**columns.more, column: mean})


def _refuse_unlike(column: str, folders: Sequence[ScoresFolder]) -> None:
    first, seen = folders[0], {str(folders[0].manifest["model"].get("fingerprint")): folders[0].name}
    for other in folders[1:]:
        if other.manifest["input"]["fingerprint"] != first.manifest["input"]["fingerprint"]:
            raise InputError(f"{other.name} holds scores of other data than {first.name}; score the same data with it")
        mark = str(other.manifest["model"].get("fingerprint"))
        if mark in seen:
            raise InputError(f"{other.name} and {seen[mark]} are of the same model; name each checkpoint once")
        seen[mark] = other.name
        mine, theirs = _owners(first)[column], _owners(other).get(column)
        if theirs is None:
            raise InputError(f"{other.name} has no column {column}; add it there as you did in {first.name}")
        if mine != theirs:
            raise InputError(
                f"{other.name} and {first.name} made the column {column} with other settings or reference sets"
            )


def _owners(folder: ScoresFolder) -> dict[str, str]:
    """By column the fingerprint of the criterion that made it."""
    return {column.name: entry.fingerprint for entry in folder.signals for column in entry.columns}


def _rate(folder: ScoresFolder) -> float:
    return float(folder.manifest["update"]["lr"])


__all__ = ["over_checkpoints"]
