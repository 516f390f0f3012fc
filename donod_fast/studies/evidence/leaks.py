"""Refuse held-out rows that a study trains on, or shows to a criterion as a reference set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from donod_fast.data.overlap import find_overlaps, refuse_overlaps
from donod_fast.studies.core.tables import Data, read_rows


@dataclass(frozen=True)
class Rows:
    """Rows and how messages name them.

    Attributes:
        name: name of the set and its files.
        rows: the rows.
        skip: rows of the files before these.
    """

    name: str
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    skip: int = 0


def reference_rows(references: Sequence[str]) -> list[Rows]:
    """The rows of reference sets, by their paths.

    Raises:
        CorpusError: a set cannot be read.
    """
    return [Rows(f"the reference set {one}", read_rows(one)) for one in references]


def refuse_leaks(heldouts: Sequence[Rows], others: Sequence[Rows]) -> None:
    """Refuse held-out rows that one of the other sets has as well.

    Raises:
        InputError: names rows of both.
    """
    for held in heldouts:
        for other in others:
            refuse_overlaps(
                find_overlaps(held.rows, other.rows),
                len(held.rows),
                held.name,
                other.name,
                first_skip=held.skip,
                second_skip=other.skip,
            )


def files_of(data: Data) -> str:
    """The names of files; "" for rows from Python."""
    if isinstance(data, (str, Path)):
        return str(data)
    return ", ".join(str(one) for one in data if isinstance(one, (str, Path)))


__all__ = ["Rows", "files_of", "reference_rows", "refuse_leaks"]
