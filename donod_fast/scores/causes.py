"""Rows without a score by status and by cause, each with an example and a remedy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from donod_fast.data.types import Status
from donod_fast.errors import StoreError, UnreachableError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.unscored import kind_of, remedy_for

MOST_CAUSES = 5
"""Causes of a status that are told apart."""


@dataclass(frozen=True, slots=True)
class DetailCount:
    """A cause of a status.

    Attributes:
        rows: how many rows have it.
        row: number of the first of them.
        example: its detail: file, place in the file, cause.
        remedy: what to do; ``""`` if the example says so itself.
    """

    rows: int
    row: int
    example: str
    remedy: str


@dataclass(frozen=True, slots=True)
class StatusCount:
    """Rows without a score that have the same status.

    Attributes:
        status: the status.
        rows: how many rows have it.
        causes: the commonest causes, at most :data:`MOST_CAUSES`.
    """

    status: str
    rows: int
    causes: tuple[DetailCount, ...]


def statuses_with_causes(folder: ScoresFolder) -> list[StatusCount]:
    """Statuses of rows without a score, commonest first; damaged parts are left out.

    The footers of all parts are read, and three columns of the parts that have such rows.
    """
    counts: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for part in range(folder.parts):
        try:
            summary = folder.summary(part)
            if summary is None or not set(summary.counts) - {str(Status.SCORED)}:
                continue
            table = folder.read_columns(part, ["row", "status", "detail"])
        except UnreachableError:
            raise
        except StoreError:
            continue
        if table is None:
            continue
        columns = (table.column(name).to_pylist() for name in ("row", "status", "detail"))
        for row, status, detail in zip(*columns, strict=True):
            if status == Status.SCORED:
                continue
            counts[status] += 1
            kind = kind_of(detail)
            kinds.setdefault(status, Counter())[kind] += 1
            first.setdefault((status, kind), (row, detail))
    found = []
    for status, rows in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        causes = []
        for kind, count in kinds[status].most_common(MOST_CAUSES):
            row, example = first[status, kind]
            causes.append(DetailCount(count, row, example, remedy_for(status, example)))
        found.append(StatusCount(status, rows, tuple(causes)))
    return found


__all__ = ["MOST_CAUSES", "DetailCount", "StatusCount", "statuses_with_causes"]
