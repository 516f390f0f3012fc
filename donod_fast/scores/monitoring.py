"""Progress of a scores folder, running or idle, from the footers and times of its parts."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from donod_fast.errors import StoreError
from donod_fast.scores.folder import PARTS, Problem, ScoresFolder
from donod_fast.scores.parts import PartSummary
from donod_fast.system.locking import is_locked

_PAUSE_SECONDS = 60.0
_PAUSE_GAPS = 20.0
_FEW_COMMITS = 8


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """State of a folder, found without reading its rows.

    Attributes:
        name: path or URL of the folder.
        running: whether a process holds it now.
        rows: of the input.
        rows_done: of the parts that are there.
        parts: of a finished folder.
        parts_done: how many are there.
        by_status: rows by status.
        tokens: of the rows that are done, before any truncation.
        scored_tokens: of the rows that are done.
        rows_per_second: since the last pause in the commits, None where that cannot be told.
        tokens_per_second: likewise.
        seconds_left: at that rate; 0 for a finished folder, None where it cannot be told.
        idle_seconds: since the last commit, None where there is none.
        damaged: parts whose file does not say what it should, each with the reason.
        problems: what went wrong on the way, oldest first.
        constants: of DON and of NOD: ‖column‖₂, least and largest value over the rows that are done.
        signals: by name of a further criterion how many parts have it.
    """

    name: str
    running: bool
    rows: int
    rows_done: int
    parts: int
    parts_done: int
    by_status: dict[str, int]
    tokens: int
    scored_tokens: int
    rows_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    idle_seconds: float | None
    damaged: dict[int, str]
    problems: list[Problem]
    constants: dict[str, tuple[float, float, float]]
    signals: dict[str, int]

    @property
    def finished(self) -> bool:
        """Whether all parts are there and none is known to be damaged."""
        return self.parts_done == self.parts and not self.damaged


def folder_status(place: Path | str, now: float | None = None) -> FolderStatus:
    """Look at a folder that is being written, was interrupted, or is finished.

    Args:
        place: its path or URL.
        now: seconds since 1970; None for the clock's.

    Raises:
        StoreError: it is no scores folder, or its manifest or plan cannot be read.
    """
    from donod_fast.scores.parts import whole_column

    now = time.time() if now is None else now
    folder = ScoresFolder.open(place)
    times = folder.storage.times(PARTS)
    found: list[PartSummary] = []
    damaged: dict[int, str] = {}
    for part in range(folder.parts):
        if folder.part_name(part) not in times:
            continue
        try:
            summary = folder.summary(part)
        except StoreError as error:
            damaged[part] = str(error)
        else:
            found += [] if summary is None else [summary]
    counts: Counter[str] = Counter()
    for summary in found:
        counts.update(summary.counts)
    done = sum(summary.rows for summary in found)
    running = is_locked(place)
    commits = sorted(
        ((times[folder.part_name(summary.number)], summary) for summary in found), key=lambda each: each[0]
    )
    rates = _rates(commits, created=_created(folder.manifest), now=now if running else None)
    left = folder.rows - done
    constants = {
        name: (column.scale * math.sqrt(column.squares), column.low, column.high)
        for name, column in (("don", whole_column(s.don for s in found)), ("nod", whole_column(s.nod for s in found)))
        if column.low <= column.high
    }
    return FolderStatus(
        name=folder.name,
        running=running,
        rows=folder.rows,
        rows_done=done,
        parts=folder.parts,
        parts_done=len(found),
        by_status=dict(counts),
        tokens=sum(summary.tokens for summary in found),
        scored_tokens=sum(summary.scored_tokens for summary in found),
        rows_per_second=None if rates is None else rates[0],
        tokens_per_second=None if rates is None else rates[1],
        seconds_left=0.0 if left == 0 else None if rates is None else left / rates[0],
        idle_seconds=max(0.0, now - max(times.values())) if times else None,
        damaged=damaged,
        problems=folder.problems(),
        constants=constants,
        signals={entry.name: sum(entry.name in part.signals for part in found) for entry in folder.signals},
    )


Commit = tuple[float, PartSummary]


def _rates(commits: Sequence[Commit], created: float | None, now: float | None) -> tuple[float, float] | None:
    """Rows and tokens a second since the last pause, in which nobody worked; None where that cannot be told.

    What was committed first began before that, and is not counted; but of the first commits of all, which several
    workers may make within a moment, all are, from the folder's beginning.

    Args:
        commits: in the order of their times.
        created: when the folder was begun.
        now: where somebody works, who will not commit before.
    """
    gaps = [after[0] - before[0] for before, after in pairwise(commits)]
    longest = max(_PAUSE_SECONDS, _PAUSE_GAPS * statistics.median(gaps)) if gaps else _PAUSE_SECONDS
    first = max((at + 1 for at, gap in enumerate(gaps) if gap > longest), default=0)
    stretch = commits[first:]
    if not stretch:
        return None
    begin, counted = stretch[0][0], [summary for moment, summary in stretch if moment > stretch[0][0]]
    if first == 0 and len(stretch) < _FEW_COMMITS and created is not None and created < begin:
        begin, counted = created, [summary for _, summary in stretch]
    seconds = max(stretch[-1][0], now or 0.0) - begin
    if seconds <= 0 or not counted:
        return None
    return sum(s.rows for s in counted) / seconds, sum(s.tokens for s in counted) / seconds


def _created(manifest: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(manifest["created"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


__all__ = ["FolderStatus", "folder_status"]
