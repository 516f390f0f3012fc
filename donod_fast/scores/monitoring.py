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

from donod_fast.scores.array_status import ArrayState, array_state
from donod_fast.scores.folded import KnownSummaries
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.part_summary import PartSummary, whole_column
from donod_fast.scores.problems import Problem
from donod_fast.scores.step_facts import StepFacts
from donod_fast.system.locking import is_locked

_PAUSE_SECONDS = 60.0
_PAUSE_GAPS = 20.0
_FEW_COMMITS = 8


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """State of a folder, determined without reading its rows.

    Attributes:
        name: path or URL of the folder.
        running: whether a process holds the folder's lock now.
        rows: number of rows of the input.
        rows_done: number of rows in the existing parts.
        parts: number of parts of the finished folder.
        parts_done: number of existing parts.
        by_status: number of done rows by status.
        tokens: tokens of the done rows, before truncation.
        scored_tokens: scored tokens of the done rows.
        rows_per_second: speed since the last pause in the commits, None if unknown.
        tokens_per_second: speed in tokens, None if unknown.
        seconds_left: remaining time at that speed; 0 for a finished folder, None if unknown.
        idle_seconds: time since the last commit, None if there was no commit.
        damaged: parts with a damaged file, each with the reason.
        problems: problems during the run, oldest first.
        constants: for DON and NOD: ‖column‖₂, smallest and largest value over the done rows.
        signals: number of parts that have each further criterion, by name.
        step: facts about the step that made the scores.
        token_losses: number of parts that have the losses of their tokens; None if the folder does not record them.
        array: the tasks of the array that scores it; None if there was no array.
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
    step: StepFacts
    token_losses: int | None = None
    array: ArrayState | None = None

    @property
    def finished(self) -> bool:
        """Whether all parts exist and none is known to be damaged."""
        return self.parts_done == self.parts and not self.damaged


def folder_status(
    place: Path | str, now: float | None = None, tasks: int | None = None, known: KnownSummaries | None = None
) -> FolderStatus:
    """Determine the state of a folder that is being written, was interrupted, or is finished.

    Args:
        place: path or URL of the folder.
        now: seconds since 1970; None reads the clock.
        tasks: divide the folder among an array of so many tasks; None for the newest array that scored it, if any.
        known: what an earlier call has read; give the same object again, and only what is new is read.

    Raises:
        StoreError: it is not a scores folder, or its manifest or plan cannot be read.
        UnreachableError: the object store refuses or does not answer.
    """
    folder = ScoresFolder.open(place)
    folder.known = KnownSummaries() if known is None else known
    return status_of(folder, now, tasks)


def status_of(folder: ScoresFolder, now: float | None = None, tasks: int | None = None) -> FolderStatus:
    """As :func:`folder_status`, of an open folder. Where many footers were read, they are folded into a file."""
    now = time.time() if now is None else now
    look = folder.known.look(folder)
    folder.known.write(folder)
    found = [summary for summary in look.summaries if summary is not None]
    damaged = {part: str(error) for part, error in look.damaged.items()}
    times = look.times
    counts: Counter[str] = Counter()
    for summary in found:
        counts.update(summary.counts)
    done = sum(summary.rows for summary in found)
    running = is_locked(folder.storage)
    timed = ((times[summary.number], summary) for summary in found if summary.number in times)
    commits = sorted(timed, key=lambda each: each[0])
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
        step=StepFacts.of(found),
        token_losses=_parts_with_losses(folder, found) if folder.losses.wanted else None,
        array=array_state(folder, _unfinished(folder, found), tasks),
    )


def _unfinished(folder: ScoresFolder, found: Sequence[PartSummary]) -> set[int]:
    """Parts that are absent or damaged, or lack a criterion or the losses that the folder records."""
    wanted = {entry.name: entry.fingerprint for entry in folder.signals}
    names = (folder.losses.name(summary.number) for summary in found)
    losses = folder.storage.existing(names) if folder.losses.wanted else None
    return set(range(folder.parts)) - {
        summary.number
        for summary in found
        if summary.has_signals(wanted) and (losses is None or folder.losses.name(summary.number) in losses)
    }


def _parts_with_losses(folder: ScoresFolder, found: Sequence[PartSummary]) -> int:
    return len(folder.storage.existing(folder.losses.name(summary.number) for summary in found))


Commit = tuple[float, PartSummary]


def _rates(commits: Sequence[Commit], created: float | None, now: float | None) -> tuple[float, float] | None:
    """Rows and tokens per second since the last pause between commits; None if unknown.

    Work on the first commit after a pause began before that commit, so the commit itself is not counted. At the
    beginning of a folder, several workers may commit almost simultaneously. So while there are only a few commits, all
    of them count, from the creation of the folder on.

    Args:
        commits: commits in the order of their times.
        created: time when the folder was created, None if unknown.
        now: current time if a process works on the folder, else None.
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


__all__ = ["FolderStatus", "folder_status", "status_of"]
