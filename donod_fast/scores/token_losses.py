"""The losses of single tokens that ``score --token-losses`` recorded, for those that show rows without the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

from donod_fast.errors import InputError
from donod_fast.scores.loss_files import LOSSES, ROW
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder


def has_token_losses(folder: ScoresFolder) -> bool:
    """Whether a folder records the losses of its tokens; parts that are not scored yet have none."""
    return folder.losses.wanted


def read_token_losses(folder: ScoresFolder, rows: Collection[int]) -> dict[int, list[float]]:
    """The cross entropy of each scored token of some rows in nats, in the order of the tokens.

    Only the files of the parts that hold these rows are read.

    Args:
        folder: a scores folder.
        rows: numbers of rows.

    Returns:
        the losses by row, for those of the rows that have them. Rows without a score have none, nor have rows of a
        part that is missing or whose losses were not added yet.

    Raises:
        InputError: there is no such row.
        StoreError: a file is damaged; names it.
    """
    if not has_token_losses(folder):
        return {}
    by_part: dict[int, set[int]] = defaultdict(set)
    for row in rows:
        if not 0 <= row < folder.rows:
            raise InputError(f"there is no row {row}: {folder.name} has {plural(folder.rows, 'row')}, numbered from 0")
        by_part[folder.plan.part_of(row)].add(row)
    found: dict[int, list[float]] = {}
    for part in sorted(by_part):
        table = folder.losses.read(part) if folder.has_part(part) else None
        if table is None:
            continue
        column = table.column(LOSSES)
        for at, row in enumerate(table.column(ROW).to_pylist()):
            if row in by_part[part]:
                found[row] = column[at].as_py()
    return found


__all__ = ["has_token_losses", "read_token_losses"]
