"""How like its corpus a subset of a scores folder is: read from the parts once, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from donod_fast.selection.out_of_core.groups import BY_FILE, Groups, groups_by, path_columns
from donod_fast.selection.out_of_core.loading import read_batches
from donod_fast.selection.out_of_core.row_set import RowSet
from donod_fast.selection.representation import (
    MOST_GROUPS,
    Moments,
    distance_of,
    length_warning_of,
    mix_warning_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from donod_fast.scores.folder import ScoresFolder


@dataclass(frozen=True, slots=True)
class Likeness:
    """A subset compared with all scored rows; see ``representation.py``.

    Attributes:
        tokens: mean tokens of a scored row.
        kept_tokens: mean tokens of a kept row.
        distances: total-variation distance of the mix by column: carried columns of 2 to 50 values, and ``file``.
        warnings: a sentence for each that is far from the corpus.
    """

    tokens: float
    kept_tokens: float
    distances: dict[str, float]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The fields of ``select --json``."""
        return {
            "tokens_mean": self.tokens,
            "kept_tokens_mean": self.kept_tokens,
            "mix_distance": self.distances,
            "warnings": list(self.warnings),
        }


def likeness(folder: ScoresFolder, rows: Tensor | RowSet | list[int]) -> Likeness:
    """Compare kept rows with all scored rows of a finished folder.

    Args:
        folder: a finished folder.
        rows: row numbers: a list, a tensor or a set of rows.

    Raises:
        StoreError: a part is missing or damaged.
    """
    kept = RowSet.of(rows, folder.rows)
    tallies = {by: _Tally(groups_by(folder, by)) for by in _columns(folder)}
    everything = chosen = Moments(0, 0.0, 0.0)
    columns = [tally.groups.column for tally in tallies.values() if tally.groups.column is not None]
    for batch in read_batches(folder, list(dict.fromkeys(["row", "don", "nod", "tokens", *columns]))):
        row, tokens = batch.column("row").to_numpy(), batch.column("tokens").to_numpy()
        scored = ~(np.isnan(batch.column("don").to_numpy()) | np.isnan(batch.column("nod").to_numpy()))
        is_kept = kept.flags(int(row[0]), int(row[-1]) + 1) if len(row) else np.zeros(0, bool)
        everything += Moments.of(tokens[scored])
        chosen += Moments.of(tokens[is_kept])
        for tally in tallies.values():
            tally.add(row, batch, scored, is_kept)
    found = {by: tally for by, tally in tallies.items() if 2 <= len(tally.groups.names) <= MOST_GROUPS}
    said = [
        length_warning_of(everything, chosen),
        *(mix_warning_of(tally.everything, tally.kept, tally.groups.names, by) for by, tally in found.items()),
    ]
    return Likeness(
        everything.mean,
        chosen.mean,
        {by: distance_of(tally.everything, tally.kept) for by, tally in found.items()},
        tuple(one for one in said if one is not None),
    )


class _Tally:
    """Counts of the groups of a column, until it has too many groups."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.everything = self.kept = np.zeros(0, np.int64)

    def add(self, row: Any, batch: Any, scored: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_]) -> None:
        """Count the rows of a batch."""
        if len(self.groups.names) > MOST_GROUPS:
            return
        column = self.groups.column
        numbers = self.groups.numbers(row, None if column is None else batch.column(column))
        size = len(self.groups.names)
        before = np.pad(self.everything, (0, size - len(self.everything)))
        self.everything = before + np.bincount(numbers[scored], minlength=size)
        self.kept = np.pad(self.kept, (0, size - len(self.kept))) + np.bincount(numbers[kept], minlength=size)


def _columns(folder: ScoresFolder) -> Iterator[str]:
    yield from dict.fromkeys(folder.carry)
    if len(folder.manifest["input"]["inputs"]) > 1 and BY_FILE not in folder.carry:
        yield BY_FILE
    yield from path_columns(folder)


__all__ = ["Likeness", "likeness"]
