"""Join the small parts of a scores folder into larger ones, without a model.

The rows of consecutive parts become one part, with the same values, statuses, hashes, criteria, losses and counts. The
new parts are written beside the old ones under names of a new generation (``revising.py``), which nothing reads yet.
Then one write of the manifest names the new plan, and the old parts are removed. A process that is killed before that
write leaves the folder as it was, one that is killed after it leaves only files to remove; the next run finishes it.

Parts are joined only where they have the same criteria, and losses of tokens or none. Absent parts are joined among
themselves, so that a run that resumes scores larger parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from donod_fast.data.shards import ShardPlan, default_part_rows, plan_shards
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.scores.folded import write_summaries
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.loss_files import LOSS_FILES
from donod_fast.scores.part_store import plan_entry
from donod_fast.scores.part_summary import PartSummary
from donod_fast.scores.revising import finish_revision
from donod_fast.scores.sample_counts import SampleCounts

if TYPE_CHECKING:
    import pyarrow as pa

State = tuple[tuple[tuple[str, str], ...], bool] | None
"""Fingerprint of each criterion of a part by name, and whether it has losses; None for an absent part."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What is joined, or would be.

    Attributes:
        name: the folder.
        rows: rows of the corpus.
        part_rows: rows of a full part afterwards.
        before: number of parts before.
        after: number of parts afterwards.
        absent: number of parts before that are not scored yet.
    """

    name: str
    rows: int
    part_rows: int
    before: int
    after: int
    absent: int


def compact(folder: ScoresFolder, part_rows: int | None = None, *, dry_run: bool = False) -> Compaction:
    """Join the parts of a folder whose lock the caller holds (``system.locking.locked``).

    Args:
        folder: the folder; it may be unfinished.
        part_rows: rows of a full part afterwards, rounded down to a multiple of what it is now; None for the default
            of a corpus of this size.
        dry_run: change nothing, and do not need the lock.

    Raises:
        InputError: ``part_rows`` is smaller than the parts are now.
        StoreError: a part is damaged or cannot be written; the folder is then as it was.
    """
    if not dry_run:
        finish_revision(folder)
    elif folder.manifest.get("before") is not None:
        raise StoreError(f"{folder.name} was interrupted while its parts were replaced; run without --dry-run first")
    now = int(folder.manifest["part_rows"])
    wanted = default_part_rows(folder.rows) if part_rows is None else part_rows
    if wanted < now and part_rows is not None:
        raise InputError(
            f"--part-rows {wanted}: {folder.name} has parts of {now:,} rows, and parts are joined, not cut; give a "
            "larger number"
        )
    wanted = max(wanted // now, 1) * now
    summaries = _intact(folder)
    states = _states(folder, summaries)
    groups = _groups(folder, states, wanted)
    absent = sum(state is None for state in states)
    found = Compaction(folder.name, folder.rows, wanted, folder.parts, len(groups), absent)
    if dry_run or found.after == found.before:
        return found
    _join(folder, groups, summaries, states, wanted)
    write_summaries(folder)
    return found


def _intact(folder: ScoresFolder) -> list[PartSummary | None]:
    if folder.manifest.get("plan") is None:
        raise StoreError(f"{folder.name} has no plan of its parts: an early release made it; score it with --overwrite")
    try:
        return folder.summaries()
    except StoreError as error:
        raise StoreError(f"parts are joined only where all are intact: {error}") from error


def _states(folder: ScoresFolder, summaries: Sequence[PartSummary | None]) -> list[State]:
    losses = set(folder.storage.names(LOSS_FILES)) if folder.losses.wanted else set()

    def state(part: int, summary: PartSummary | None) -> State:
        if summary is None:
            return None
        marks = tuple((name, mark) for name, (mark, _) in summary.signals.items())
        return marks, folder.losses.name(part) in losses

    return [state(part, summary) for part, summary in enumerate(summaries)]


def _groups(folder: ScoresFolder, states: Sequence[State], part_rows: int) -> list[range]:
    """Which parts are joined: as ``score`` would cut the corpus, if that joins whole parts, else whatever fits."""
    bounds = np.array([folder.part_range(part)[0] for part in range(folder.parts)] + [folder.rows])
    if len(set(states)) == 1:
        try:
            cut = plan_shards(folder.corpus(), part_rows)
            first = np.array([cut.part_range(part)[0] for part in range(len(cut))] + [cut.rows])
            places = np.searchsorted(bounds, first)
            if len(cut) < folder.parts and np.array_equal(bounds[np.minimum(places, len(bounds) - 1)], first):
                return [range(*pair) for pair in zip(places[:-1].tolist(), places[1:].tolist(), strict=True)]
        except (CorpusError, StoreError):  # rows that Python gave, or files of a kind that must be opened
            pass
    found = []
    for _, members in groupby(range(folder.parts), key=lambda part: states[part]):
        begin, last = None, 0
        for part in members:
            if begin is not None and bounds[part + 1] - bounds[begin] > part_rows:
                found.append(range(begin, part))
                begin = None
            begin, last = part if begin is None else begin, part
        assert begin is not None
        found.append(range(begin, last + 1))
    return found


def _joined_plan(folder: ScoresFolder, groups: Sequence[range]) -> ShardPlan:
    """The plan with a part for each group; ranges of an input that follow each other become one."""
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    lines: list[list[int]] = []
    for part, segments in enumerate(folder.plan.lines()):
        for line in segments.tolist():
            line[0] = int(owner[part])
            last = lines[-1] if lines else None
            if last is not None and last[0] == line[0] and last[2] == line[2] and last[3] + last[4] == line[3]:
                last[4] += line[4]
                last[7] = line[7]  # where its last row ends
            else:
                lines.append(line)
    return ShardPlan(np.array(lines, np.int64))


def _join(
    folder: ScoresFolder,
    groups: Sequence[range],
    summaries: Sequence[PartSummary | None],
    states: Sequence[State],
    part_rows: int,
) -> None:
    old = folder.manifest
    generation = int(old.get("generation") or 0) + 1
    file = f"plan-g{generation}.parquet"
    plan = _joined_plan(folder, groups)
    content = plan.to_bytes()
    entries = {"plan": plan_entry(file, plan, content), "generation": generation, "part_rows": part_rows}
    target = ScoresFolder(folder.storage, {**old, **entries})
    target.__dict__["plan"] = plan  # its file is not written yet
    there = set(folder.storage.names(f"part-g{generation}-*.parquet"))
    for number, group in enumerate(groups):
        state = states[group[0]]
        if target.part_name(number) in there:
            if state is not None and _is_done(target, number, state):
                continue
            target.storage.remove(target.part_name(number))
        if state is not None:
            _write_joined(folder, target, number, group, [one for one in summaries[group[0] : group[-1] + 1] if one])
    folder.storage.write(file, content)
    before = {name: old.get(name) for name in ("input", "plan", "generation")}
    folder.write_manifest({**old, **entries, "before": before})
    finish_revision(folder)


def _is_done(target: ScoresFolder, number: int, state: State) -> bool:
    """Whether an interrupted run wrote a part already, whole and from parts like those of now."""
    try:
        table = target.read_part(number)
        summary = target.summary(number)
        losses = target.losses.read(number)
    except StoreError:
        return False
    if table is None or summary is None:
        return False
    return state == (tuple((name, mark) for name, (mark, _) in summary.signals.items()), losses is not None)


def _write_joined(
    folder: ScoresFolder, target: ScoresFolder, number: int, group: range, summaries: Sequence[PartSummary]
) -> None:
    import pyarrow as pa

    tables = list(_tables(folder, group))
    losses = [found for part in group if folder.losses.wanted and (found := folder.losses.read(part)) is not None]
    if losses:
        target.losses.write_table(number, pa.concat_tables(losses).combine_chunks())
    samples = sum((summary.samples for summary in summaries), SampleCounts())
    gradient = next((summary.gradient for summary in summaries if summary.gradient is not None), None)
    # Parts of an earlier release have no hashes: theirs are null.
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    target.write_table(number, table, summaries[0].signals, samples, gradient)


def _tables(folder: ScoresFolder, group: range) -> Iterator[pa.Table]:
    for part in group:
        table = folder.read_part(part, hashes=True)
        if table is None:
            raise StoreError(f"{folder.storage.url(folder.part_name(part))} is gone; run `donod-fast score` again")
        yield table


__all__ = ["Compaction", "compact"]
