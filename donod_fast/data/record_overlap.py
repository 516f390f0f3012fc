"""Held-out rows that are also in training data: records in memory, compared by :mod:`donod_fast.data.overlap`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.data.overlap import Lookout
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import Record
from donod_fast.errors import InputError
from donod_fast.system.wording import plural

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """A row of the first set that the second set has as well.

    Attributes:
        first: position in the first set.
        second: position in the second set, of the first such row.
        why: what both have in common.
    """

    first: int
    second: int
    why: str


def find_overlaps(
    first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]], rules: ReadRules | None = None
) -> list[Overlap]:
    """Find the rows of ``first`` that are in ``second`` too, in the order of ``first``, one overlap for each.

    Args:
        first: records, fewer if possible; their hashes are held in memory.
        second: records, read once.
        rules: how records are read; None finds the format of each record.
    """
    known = [("", record) for record in _records(first)]
    lookout = Lookout(known, len(known), rules or ReadRules())
    found = [Overlap(match.known.row, match.record.row, match.why) for match in lookout.matches(_records(second))]
    return sorted(found, key=lambda overlap: overlap.first)


def _records(rows: Iterable[Mapping[str, Any]]) -> Iterable[Record]:
    return (Record(place, "-", f"record {place}", row) for place, row in enumerate(rows))


def refuse_overlaps(
    overlaps: Sequence[Overlap],
    total: int,
    first: str,
    second: str,
    *,
    first_skip: int = 0,
    second_skip: int = 0,
    remedy: str = "or give --allow-overlap",
) -> None:
    """Refuse a first set that has rows of the second one.

    Args:
        overlaps: result of :func:`find_overlaps`.
        total: rows of the first set.
        first, second: names of the sets, with their files.
        first_skip, second_skip: rows of the files before the sets begin, so that rows are named by their places.
        remedy: what else the user may do.

    Raises:
        InputError: there is an overlap; the message names rows of both.
    """
    if not overlaps:
        return
    shown = ", ".join(
        f"row {one.first + first_skip} ({one.why} as row {one.second + second_skip})" for one in overlaps[:_SHOWN]
    )
    more = f" and {len(overlaps) - _SHOWN} more" if len(overlaps) > _SHOWN else ""
    raise InputError(
        f"{len(overlaps)} of {plural(total, 'row')} of {first} are also in {second}: {shown}{more} (rows counted from "
        f"0); use other rows, {remedy}"
    )


__all__ = ["Overlap", "find_overlaps", "refuse_overlaps"]
