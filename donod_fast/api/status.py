"""The state of scores: rows by status with their causes, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.api.shown import as_pre, counts
from donod_fast.scores.causes import StatusCount, statuses_with_causes
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.monitoring import FolderStatus, status_of
from donod_fast.system.wording import plural

_SHOWN_PARTS = 10


@dataclass(frozen=True)
class ScoresStatus:
    """What ``Scores.status`` is.

    Attributes:
        place: path or URL of the folder, or ``in memory``.
        folder: rows, parts, tokens, speed and problems, as ``donod-fast status`` shows them.
        unscored: statuses of rows without a score, with their causes, commonest first.
        missing: (first row, row after the last) of each part that is absent or damaged.
    """

    place: str
    folder: FolderStatus
    unscored: tuple[StatusCount, ...]
    missing: tuple[tuple[int, int], ...]

    @staticmethod
    def of(folder: ScoresFolder, place: str) -> ScoresStatus:
        """Look at a folder. Raises StoreError: its manifest or its plan cannot be read."""
        found = status_of(folder)
        there = folder.present()
        missing = [
            folder.part_range(part) for part in range(folder.parts) if part not in there or part in found.damaged
        ]
        return ScoresStatus(place, found, tuple(statuses_with_causes(folder)), tuple(missing))

    @property
    def finished(self) -> bool:
        """Whether every row has a status."""
        return not self.missing

    @property
    def by_status(self) -> dict[str, int]:
        """Rows by status."""
        return self.folder.by_status

    @property
    def missing_rows(self) -> int:
        """Rows that no part has."""
        return sum(stop - start for start, stop in self.missing)

    def __repr__(self) -> str:
        folder = self.folder
        state = "running" if folder.running else "finished" if self.finished else "unfinished"
        lines = [
            f"{self.place}: {state}, {folder.rows_done:,} of {plural(folder.rows, 'row')}: "
            f"{counts(folder.by_status) or 'none yet'}"
        ]
        for status in self.unscored:
            lines.append(f"  {status.status}: {plural(status.rows, 'row')}")
            for cause in status.causes:
                remedy = cause.remedy and f"; {cause.remedy}"
                lines.append(f"    {plural(cause.rows, 'row')}, the first is {cause.row:,}: {cause.example}{remedy}")
        if self.missing:
            shown = ", ".join(f"{start:,}–{stop - 1:,}" for start, stop in self.missing[:_SHOWN_PARTS])
            more = ", …" if len(self.missing) > _SHOWN_PARTS else ""
            lines.append(
                f"  missing: {plural(self.missing_rows, 'row')} in {plural(len(self.missing), 'part')} (rows {shown}"
                f"{more}); score into the same folder again to finish it"
            )
        lines += [f"  damaged: {text}" for text in folder.damaged.values()]
        if folder.problems:
            lines.append(f"  problems: {len(folder.problems):,}, the last: {folder.problems[-1].text}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return as_pre(repr(self))


__all__ = ["ScoresStatus"]
