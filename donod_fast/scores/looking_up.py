"""Find single rows in a scores folder, and read their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.system.wording import plural


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of a scores folder.

    Attributes:
        status: its status.
        detail: its detail.
        tokens: number of its tokens.
        scored_tokens: number of its scored tokens.
        numbers: its scores by column, further criteria included; empty for a row without a score.
    """

    status: str
    detail: str
    tokens: int
    scored_tokens: int
    numbers: dict[str, float]


def row_numbers(folder: ScoresFolder, count: int, *, status: str | None = None, ids: Iterable[str] = ()) -> list[int]:
    """The first rows that have a status or one of the ids, in input order; parts that are missing are skipped.

    Raises:
        InputError: there is no such row.
        StoreError: a part is damaged.
    """
    wanted, found = set(ids), list[int]()
    for part in range(folder.parts):
        if len(found) >= count:
            break
        summary = folder.summary(part) if status is not None else None
        if summary is not None and not summary.counts.get(str(status)):
            continue
        table = folder.read_part(part)
        if table is None:
            continue
        column = table.column("id" if status is None else "status").to_pylist()
        rows = table.column("row").to_pylist()
        found += [row for row, value in zip(rows, column, strict=True) if value == status or value in wanted]
    if not found:
        what = f"the id {', '.join(sorted(wanted))}" if status is None else f"the status {status}"
        raise InputError(f"no row of {folder.name} has {what}; it has {plural(folder.rows, 'row')}")
    return found[:count]


def found_row(folder: ScoresFolder, row: int) -> FoundRow | None:
    """A row of a folder; None if its part is missing.

    Raises:
        StoreError: the part is damaged.
    """
    part = next(p for p in range(folder.parts) if folder.part_range(p)[0] <= row < folder.part_range(p)[1])
    table = folder.read_part(part)
    if table is None:
        return None
    values: dict[str, Any] = table.slice(row - folder.part_range(part)[0], 1).to_pylist()[0]
    names = (*SCORE_COLUMNS, *(column.name for column in folder.signal_columns()))
    numbers = {name: values[name] for name in names if isinstance(values.get(name), int | float)}
    return FoundRow(
        values["status"],
        values["detail"],
        values["tokens"],
        values["scored_tokens"],
        numbers if values["status"] == "scored" else {},
    )


__all__ = ["FoundRow", "found_row", "row_numbers"]
