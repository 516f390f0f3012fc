"""What every engine does around the scoring of parts: open the folder, find what is missing, report the outcome."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.data.reading import Corpus
from donod_fast.engines.request import RunOptions
from donod_fast.errors import CorpusError, StoreError
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.scores.folded import write_summaries
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.manifest import OPTIONS, TOKEN_LOSSES
from donod_fast.scores.opening import joined_options, open_scores, record_options
from donod_fast.scores.problems import add_problem
from donod_fast.scores.task_marks import remove_other_marks
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.system.storage import Storage
from donod_fast.system.task_locks import opening
from donod_fast.system.wording import plural

_log = logging.getLogger(__name__)

SAME_MASKS = (0, 3)
"""The release since which records are read, rendered and masked as they are now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scoring run left behind.

    Attributes:
        folder: the scores folder; finished, unless this was a task of an array.
        counts: rows by status over the parts of this run: all of the folder, or those of the task.
        resumed_rows: rows of these parts that an earlier run had scored.
        formats: rows by record format, of those tokenised by this run.
        fitting_budget: the token budget that batches were cut to, if this process ran out of memory; else None.
        task: about the task of an array that this was; None for a run over the whole folder.
    """

    folder: ScoresFolder
    counts: Counter[str]
    resumed_rows: int
    formats: Counter[str]
    fitting_budget: int | None = None
    task: TaskOutcome | None = None


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """What a task of an array left behind.

    Attributes:
        task: the task.
        parts: its parts; all are committed.
        rows: their rows.
        left: parts of the folder that other tasks have not committed so far.
    """

    task: ArrayTask
    parts: int
    rows: int
    left: int


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A scores folder and the parts that a run has to score.

    Attributes:
        folder: the folder.
        wanted: criteria that a part must have to count as committed: by name the fingerprint of the settings.
        missing: numbers of the parts to score, in rising order.
        resumed_rows: rows of the other parts of this run.
        parts: the parts of this run: all of the folder, or those of a task of an array.
        task: the task of an array; None for a run over the whole folder.
    """

    folder: ScoresFolder
    wanted: Mapping[str, str]
    missing: tuple[int, ...]
    resumed_rows: int
    parts: Sequence[int]
    task: ArrayTask | None = None

    @property
    def missing_rows(self) -> int:
        """Rows of the missing parts."""
        return rows_of(self.folder, self.missing)

    def note_problem(self, part: int | None, text: str) -> None:
        """Record a problem for ``donod-fast status``. Raises StoreError: it cannot be written."""
        add_problem(self.folder.storage, part, text, self.task)

    def is_committed(self, part: int) -> bool:
        """Whether a part is complete, with the wanted criteria and the losses that the folder records."""
        return self.folder.is_committed(part, self.wanted)

    def outcome(self, formats: Counter[str], *, fitting_budget: int | None = None) -> Outcome:
        """What the run left behind, after its last part was committed.

        Raises:
            StoreError: the folder cannot be read: something removed files of it during the run.
        """
        left = ScoresFolder.open(self.folder.storage).missing_parts(self.wanted, self.parts)
        if left:
            raise StoreError(
                f"{self.folder.name}: {plural(len(left), 'committed part')} of this run missing: "
                "something else removes files of this folder; run the same command again"
            )
        if self.task is None:
            write_summaries(self.folder, self.folder.known)
            return Outcome(self.folder, self.folder.counts(), self.resumed_rows, formats, fitting_budget)
        counts: Counter[str] = Counter()
        for summary in map(self.folder.summary, self.parts):
            counts.update({} if summary is None else summary.counts)
        absent = self.folder.parts - len(self.folder.present())
        if not absent:  # this task may be the last one; if several are, each writes the same facts
            write_summaries(self.folder, self.folder.known)
        about = TaskOutcome(self.task, len(self.parts), rows_of(self.folder, self.parts), absent)
        return Outcome(self.folder, counts, self.resumed_rows, formats, fitting_budget, about)

    def unreadable_inputs(self, first: CorpusError) -> CorpusError:
        """The error of a run that committed all parts but those of inputs that cannot be read."""
        parts = len(self.parts)
        left = sum(not self.is_committed(part) for part in self.parts)
        return CorpusError(
            f"{first}\n{parts - left:,} of {parts:,} parts are committed and stay; "
            "the same command scores the rest when the input is back"
        )


def open_folder(
    out: Path | str | Storage, corpus: Corpus, manifest: Mapping[str, Any], options: RunOptions
) -> ScoresFolder:
    """Open or create the scores folder of a run. The caller holds its lock, or that of its task of an array.

    Raises:
        SettingsMismatchError: the folder holds scores made with other settings, or of files that have changed.
        StoreError: the folder cannot be read or written.
    """
    if options.token_losses:
        manifest = {**manifest, TOKEN_LOSSES: True}
    shared = options.task is not None
    if shared and options.record:  # so that a task that opens the folder next has nothing to add
        manifest = {**manifest, OPTIONS: joined_options({}, options.record)}
    with opening(out) if shared else nullcontext():
        folder = open_scores(
            out,
            corpus,
            manifest,
            overwrite=options.overwrite,
            rescore_changed=options.rescore_changed,
            shared=shared,
        )
        if options.record:
            record_options(folder, options.record)
    if options.task is not None:
        remove_other_marks(folder.storage, options.task)
    return folder


def begin(
    folder: ScoresFolder, wanted: Mapping[str, str], progress: Progress | None, task: ArrayTask | None = None
) -> OpenRun:
    """Find the missing parts, and report the rows of the others as progress.

    Args:
        folder: the folder.
        wanted: criteria that every part must have: by name the fingerprint of the settings.
        progress: called with the rows of parts that are there.
        task: consider only the parts of this task of an array.
    """
    parts: Sequence[int] = range(folder.parts) if task is None else task.parts(folder.plan)
    missing = folder.missing_parts(wanted, parts)
    if missing and len(missing) < folder.parts:
        _warn_of_other_masks(folder)
    resumed = rows_of(folder, parts) - rows_of(folder, missing)
    if resumed and progress is not None:
        progress(resumed, 0)
    return OpenRun(folder, wanted, tuple(missing), resumed, parts, task)


def rows_of(folder: ScoresFolder, parts: Sequence[int]) -> int:
    """Rows of some parts of a folder."""
    return sum(stop - start for start, stop in map(folder.part_range, parts))


def _warn_of_other_masks(folder: ScoresFolder) -> None:
    begun = str((folder.manifest.get("versions") or {}).get("donod_fast", ""))
    release = re.match(r"(\d+)\.(\d+)", begun)
    if release is not None and (int(release[1]), int(release[2])) < SAME_MASKS:
        _log.warning(
            "release %s began %s, and rendered and masked some conversations in another way; the parts that are "
            "missing are scored as now: add --overwrite to score all parts alike",
            begun,
            folder.name,
        )


__all__ = ["OpenRun", "Outcome", "TaskOutcome", "begin", "open_folder", "rows_of"]
