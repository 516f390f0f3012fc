"""What every engine does around the scoring of parts: open the folder, find what is missing, report the outcome."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.data.reading import Corpus
from donod_fast.engines.request import RunOptions
from donod_fast.errors import CorpusError, StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.manifest import TOKEN_LOSSES
from donod_fast.scores.opening import open_scores, record_options
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.system.storage import Storage
from donod_fast.system.wording import plural

_log = logging.getLogger(__name__)

SAME_MASKS = (0, 3)
"""The release since which records are read, rendered and masked as they are now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scoring run left behind.

    Attributes:
        folder: the finished scores folder.
        counts: rows by status over the whole folder.
        resumed_rows: rows that an earlier run had scored.
        formats: rows by record format, of those tokenised by this run.
        fitting_budget: the token budget that batches were cut to, if this process ran out of memory; else None.
    """

    folder: ScoresFolder
    counts: Counter[str]
    resumed_rows: int
    formats: Counter[str]
    fitting_budget: int | None = None


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A scores folder and the parts that a run has to score.

    Attributes:
        folder: the folder.
        wanted: criteria that a part must have to count as committed: by name the fingerprint of the settings.
        missing: numbers of the parts to score, in rising order.
        resumed_rows: rows of the other parts.
    """

    folder: ScoresFolder
    wanted: Mapping[str, str]
    missing: tuple[int, ...]
    resumed_rows: int

    @property
    def missing_rows(self) -> int:
        """Rows of the missing parts."""
        return self.folder.rows - self.resumed_rows

    def is_committed(self, part: int) -> bool:
        """Whether a part is complete, with the wanted criteria and the losses that the folder records."""
        return self.folder.is_committed(part, self.wanted)

    def outcome(self, formats: Counter[str], *, fitting_budget: int | None = None) -> Outcome:
        """What the run left behind, after its last part was committed.

        Raises:
            StoreError: the folder cannot be read: something removed files of it during the run.
        """
        left = ScoresFolder.open(self.folder.storage).missing_parts(self.wanted)
        if left:
            raise StoreError(
                f"{self.folder.name}: {plural(len(left), 'committed part')} of this run missing: "
                "something else removes files of this folder; run the same command again"
            )
        return Outcome(self.folder, self.folder.counts(), self.resumed_rows, formats, fitting_budget)

    def unreadable_inputs(self, first: CorpusError) -> CorpusError:
        """The error of a run that committed all parts but those of inputs that cannot be read."""
        parts = self.folder.parts
        left = sum(not self.is_committed(part) for part in range(parts))
        return CorpusError(
            f"{first}\n{parts - left:,} of {parts:,} parts are committed and stay; "
            "the same command scores the rest when the input is back"
        )


def open_folder(
    out: Path | str | Storage, corpus: Corpus, manifest: Mapping[str, Any], options: RunOptions
) -> ScoresFolder:
    """Open or create the scores folder of a run. The caller holds its lock (``system.locking.locked``).

    Raises:
        SettingsMismatchError: the folder holds scores made with other settings, or of files that have changed.
        StoreError: the folder cannot be read or written.
    """
    if options.token_losses:
        manifest = {**manifest, TOKEN_LOSSES: True}
    folder = open_scores(out, corpus, manifest, overwrite=options.overwrite, rescore_changed=options.rescore_changed)
    if options.record:
        record_options(folder, options.record)
    return folder


def begin(folder: ScoresFolder, wanted: Mapping[str, str], progress: Progress | None) -> OpenRun:
    """Find the missing parts, and report the rows of the others as progress."""
    missing = folder.missing_parts(wanted)
    if missing and len(missing) < folder.parts:
        _warn_of_other_masks(folder)
    resumed = folder.rows - sum(stop - start for start, stop in map(folder.part_range, missing))
    if resumed and progress is not None:
        progress(resumed, 0)
    return OpenRun(folder, wanted, tuple(missing), resumed)


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


__all__ = ["OpenRun", "Outcome", "begin", "open_folder"]
