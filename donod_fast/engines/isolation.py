"""Find the rows at fault in a part that crashes or hangs its process.

A process may have been killed from outside, or a row may crash or hang every process that scores it. Only another try
can tell these apart:

1. The part is scored again, alone in its process, until :data:`MOST_TRIES` processes have been lost.
2. Its rows are *probed*: scored one by one, each announced before it is scored. If the process is lost, the row becomes
   doubtful, and another process continues with the rest.
3. A doubtful row is probed once more. If the process is lost again, the row is excluded; else it is cleared.
4. The part is scored once more without the excluded rows. If that fails as well, the part is given up.

A probe begins with a row that an earlier probe scored, so that a broken device does not put the blame on rows.
"""

from __future__ import annotations

from collections import deque

STALL_TIMEOUT = 1800.0
"""Seconds without progress after which a process is considered hung."""

LOADING_SECONDS = 1800.0
"""A process that loads the model, which it may have to download, has at least these seconds for it."""

MOST_TRIES = 3
"""Number of processes lost in a row, at one part or on one device, that is not an accident any more."""


class Suspect:
    """A part under suspicion.

    Attributes:
        part: its number.
        tries: how many processes were lost while they scored it.
        excluded: rows that are known to be at fault, each with a description of what they did.
        hopeless: why the part cannot be scored, None as long as it may be possible.

    Args:
        part: its number.
        start: its first row.
        stop: one past its last.
    """

    def __init__(self, part: int, start: int, stop: int) -> None:
        self.part = part
        self.tries = 0
        self.excluded: dict[int, str] = {}
        self.hopeless: str | None = None
        self._untried = deque(range(start, stop))
        self._doubtful: deque[int] = deque()
        self._sound: int | None = None
        self._unannounced = 0

    def probe(self) -> tuple[int, ...]:
        """The rows to score next, one by one; empty if the part should be scored as a whole."""
        if self.tries < MOST_TRIES:
            return ()
        rows = tuple(self._untried) or tuple(self._doubtful)[:1]
        return (self._sound, *rows) if rows and self._sound is not None else rows

    def lost_scoring(self, cause: str) -> None:
        """A process was lost while it scored the part."""
        self.tries += 1
        if self.tries > MOST_TRIES:
            self.hopeless = f"{cause}, although each row that is left passes alone"

    def lost_probing(self, row: int | None, cause: str) -> None:
        """A process was lost at a row, or before it had announced one (None)."""
        if row is None:
            self._unannounced += 1
            if self._unannounced >= MOST_TRIES - 1:
                self.hopeless = f"{cause} before a row was reached"
        elif self._untried and row in self._untried:
            while self._untried.popleft() != row:  # those before it have passed, but the report was lost
                pass
            self._doubtful.append(row)
            if self._sound is None:  # similar rows are often neighbours: look for a sound one far away
                self._untried.rotate(len(self._untried) // 2)
        elif row != self._sound:
            self._doubtful.remove(row)
            self.excluded[row] = (
                f"the process {cause} both times that it scored this row alone, "
                f"and {self.tries} times at rows that this one was among"
            )

    def passed(self, row: int, scored: bool) -> None:
        """A process has survived a row alone. A row without a score has tested nothing."""
        if self._sound is None and scored:
            self._sound = row
        for rows in (self._untried, self._doubtful):
            if rows and rows[0] == row:
                rows.popleft()
                return


__all__ = ["LOADING_SECONDS", "MOST_TRIES", "STALL_TIMEOUT", "Suspect"]
