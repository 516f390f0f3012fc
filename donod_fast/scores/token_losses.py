"""The losses of single tokens that ``score --token-losses`` recorded, for whatever shows rows without the model."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from donod_fast.errors import InputError
from donod_fast.scores.loss_files import LOSSES, ROW
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from donod_fast.scores.folder import ScoresFolder


def has_token_losses(folder: ScoresFolder) -> bool:
    """Whether a folder records the losses of its tokens; parts that are not scored yet have none."""
    return folder.losses.wanted


def read_token_losses(folder: ScoresFolder, rows: Collection[int]) -> dict[int, list[float]]:
    """The cross entropy of each scored token of some rows in nats, in the order of the tokens.

    Only the files of the parts that hold these rows are read, each once.

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
    reader = RecordedLosses(folder)
    found = ((row, reader.of(row)) for row in sorted(set(rows)))
    return {row: losses for row, losses in found if losses is not None}


class RecordedLosses:
    """Reads the losses of rows one by one; the file of the last part stays in memory.

    Args:
        folder: a scores folder.
    """

    def __init__(self, folder: ScoresFolder) -> None:
        self._folder = folder
        self._part = -1
        self._table: pa.Table | None = None
        self._rows: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def of(self, row: int) -> list[float] | None:
        """The losses of a row, as :func:`read_token_losses` gives them; None if it has none.

        Raises:
            InputError, StoreError: as there.
        """
        folder = self._folder
        if not 0 <= row < folder.rows:
            raise InputError(f"there is no row {row}: {folder.name} has {plural(folder.rows, 'row')}, numbered from 0")
        if not has_token_losses(folder):
            return None
        part = folder.plan.part_of(row)
        if part != self._part:
            self._table = folder.losses.read(part) if folder.has_part(part) else None
            self._rows = np.zeros(0, np.int64) if self._table is None else self._table.column(ROW).to_numpy()
            self._part = part
        at = int(np.searchsorted(self._rows, row))
        if self._table is None or at == len(self._rows) or self._rows[at] != row:
            return None
        losses: list[float] = self._table.column(LOSSES)[at].as_py()
        return losses


__all__ = ["RecordedLosses", "has_token_losses", "read_token_losses"]
