"""The parts that are left to score: which process gets which, and what happens to the parts of a lost process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress

from donod_fast.engines.device.child import Failed, Go, Probe, Task
from donod_fast.engines.device.process import DeviceProcess
from donod_fast.engines.isolation import MOST_TRIES, Suspect
from donod_fast.engines.request import OnProblem
from donod_fast.errors import CorpusError, WorkerError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.sample_scorer import Progress


class Work:
    """The parts that a pool has to score.

    Attributes:
        folder: where they go.

    Args:
        folder: see above.
        wanted: criteria that a committed part has: by name the fingerprint of the settings.
        parts: their numbers.
        progress: called with rows and tokens as they are scored.
        on_problem: called for parts that cost a process or cannot be read, and for rows that are left out.
    """

    def __init__(
        self,
        folder: ScoresFolder,
        wanted: Mapping[str, str],
        parts: Iterable[int],
        progress: Progress,
        on_problem: OnProblem,
    ) -> None:
        self.folder, self._wanted = folder, wanted
        self._queue = deque(parts)
        self._progress, self._on_problem = progress, on_problem
        self._suspects: dict[int, Suspect] = {}
        self._waiting: deque[Suspect] = deque()
        self._unread: dict[int, str] = {}
        self._hopeless: dict[int, str] = {}

    @property
    def is_handed_out(self) -> bool:
        """Whether no part waits for a process."""
        return not (self._queue or self._waiting)

    def hand_out(self, idle: Iterable[DeviceProcess]) -> None:
        """Give idle processes something to do, as long as there is something."""
        coming = iter(idle)
        with suppress(StopIteration):
            while self._waiting:
                child = next(coming)
                suspect = self._waiting.popleft()
                rows = suspect.probe()
                child.set_to(Probe(suspect.part, rows) if rows else Go(), suspect)
            for _ in range(len(self._queue)):
                next(coming).set_to(Go(), None)

    def answer_wish(self, child: DeviceProcess, children: int) -> None:
        """Send a process the next part, or None if it should finish the parts that it has.

        Processes ask ahead. Near the end no process gets more parts ahead than are left for each of the others, so that
        all end at the same time. A suspect is scored alone, so that no other part can be blamed the next time.

        Args:
            child: the process that asks.
            children: the number of processes.
        """
        self.forget_committed(child)
        suspect = child.suspect
        if suspect is not None and not child.closed:
            child.closed = True
            child.hand(Task(suspect.part, suspect.excluded))
        elif suspect is None and len(self._queue) >= max(1, len(child.parts) * children if children > 1 else 0):
            child.hand(Task(self._queue.popleft()))
        else:
            child.send(None)

    def progressed(self, child: DeviceProcess, rows: int, tokens: int) -> None:
        """A process has scored some rows."""
        child.rows += rows
        self._progress(rows, tokens)

    def forget_committed(self, child: DeviceProcess) -> bool:
        """Drop the parts of a process that are committed by now. Returns whether there were any."""
        committed = [part for part in child.parts if self.folder.is_committed(part, self._wanted)]
        for part in committed:
            start, stop = self.folder.part_range(part)
            child.rows -= stop - start
            child.parts.remove(part)
            child.slot.strikes = 0
            self._suspects.pop(part, None)
        return bool(committed)

    def finished(self, child: DeviceProcess, unread: tuple[int, str] | None) -> None:
        """A process has committed its parts, except from a part that could not be read on.

        Raises:
            WorkerError: it has not committed them.
        """
        self.forget_committed(child)
        if unread is not None:
            self._refuse(*unread)
            child.parts.remove(unread[0])
            self._queue.extendleft(reversed(child.parts))
            child.parts.clear()
        if child.parts:
            raise WorkerError(f"{child.device}: ended without committing {self._rows_of(child.parts[0])}")
        self._take_back_progress(child)
        child.suspect, child.idle = None, True

    def passed(self, child: DeviceProcess, scored: bool) -> None:
        """A probing process has survived the row that it announced last."""
        assert child.suspect is not None and child.trying is not None
        child.suspect.passed(child.trying, scored)
        if scored:
            child.slot.strikes = 0

    def probed(self, child: DeviceProcess, unread: str | None) -> None:
        """A process has finished a probe."""
        suspect = child.suspect
        assert suspect is not None
        if unread is None:
            self._waiting.appendleft(suspect)
        else:
            self._refuse(suspect.part, unread)
        child.suspect, child.idle = None, True

    def lost(self, child: DeviceProcess, failure: Failed | None, cause: str) -> str:
        """Reassign the parts of a lost process. Returns where the process was lost, for a message."""
        self.forget_committed(child)
        self._take_back_progress(child)
        suspect = child.suspect
        if suspect is not None and child.probing:
            return self._lost_probing(child, suspect, cause)
        if suspect is not None and not child.closed:  # the part had not been sent to it
            self._waiting.appendleft(suspect)
            return ""
        blamed = child.blamed(failure)
        self._queue.extendleft(part for part in reversed(child.parts) if part not in blamed)
        for part in blamed:
            self._on_problem(part, f"{child.device}: the process {cause} at {self._rows_of(part)}")
            suspect = self._suspects.setdefault(part, Suspect(part, *self.folder.part_range(part)))
            suspect.lost_scoring(cause)
            if suspect.tries == MOST_TRIES:
                child.slot.strikes = 0  # now its rows are probed, which may clear the device
            self._look_again(child, suspect)
        return f" at {self._rows_of(blamed[0])}" if blamed else ""

    def raise_what_is_left(self) -> None:
        """Raise an error about the first part that could not be scored, if there is one.

        Raises:
            WorkerError: no process survives it.
            CorpusError: it cannot be read.
        """
        count = len(self._hopeless) + len(self._unread)
        parts = "1 part is" if count == 1 else f"{count} parts are"
        for failed, kind in ((self._hopeless, WorkerError), (self._unread, CorpusError)):
            if failed:
                raise kind(
                    f"{failed[min(failed)]}; {parts} left unscored for such reasons, the others are committed, "
                    "and the same command resumes"
                )

    def _lost_probing(self, child: DeviceProcess, suspect: Suspect, cause: str) -> str:
        row = child.trying
        where = f" at {self._rows_of(suspect.part)}" if row is None else f" at row {row}"
        suspect.lost_probing(row, cause)
        self._on_problem(suspect.part, f"{child.device}: the process {cause}{where}, alone")
        if row is not None and row in suspect.excluded:
            child.slot.strikes = 0
            self._on_problem(suspect.part, f"row {row} is left out: {suspect.excluded[row]}")
        self._look_again(child, suspect)
        return where

    def _look_again(self, child: DeviceProcess, suspect: Suspect) -> None:
        """Try a suspect again, or give it up if nothing is left to try."""
        if suspect.hopeless is None and suspect is child.suspect:
            self._waiting.appendleft(suspect)  # one after the other
            return
        if suspect.hopeless is None:
            self._waiting.append(suspect)
            return
        self._suspects.pop(suspect.part, None)
        text = f"{child.device}: {self._rows_of(suspect.part)} cannot be scored, the process {suspect.hopeless}"
        self._hopeless[suspect.part] = text
        self._on_problem(suspect.part, text)

    def _refuse(self, part: int, text: str) -> None:
        """A part cannot be read."""
        self._unread[part] = text
        self._suspects.pop(part, None)
        self._on_problem(part, text)

    def _take_back_progress(self, child: DeviceProcess) -> None:
        """Rows that were reported and not committed will be scored, and reported, again."""
        if child.rows:
            self._progress(-child.rows, 0)
        child.rows = 0

    def _rows_of(self, part: int) -> str:
        start, stop = self.folder.part_range(part)
        return f"rows {start} to {stop - 1}"


__all__ = ["Work"]
