"""Write parts in the background: the device scores the next part while the last one is synced to disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from donod_fast.errors import StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.gradient_size import GradientSize
from donod_fast.scores.rows import ScoreRow
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.system.profiling import NO_STAGES, Stages

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from donod_fast.scores.part_summary import Signals
    from donod_fast.scores.signals import SignalEntry

# Number of parts that a crash can lose in addition to the current one; a resumed run scores them again.
_MOST_WAITING = 2


class PartWriter:
    """Commits parts one at a time in the given order, in a separate thread."""

    def __init__(self, folder: ScoresFolder, pool: ThreadPoolExecutor, stages: Stages) -> None:
        self._folder, self._pool, self._stages = folder, pool, stages
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def write(
        self,
        part: int,
        rows: Sequence[ScoreRow],
        signals: Sequence[SignalEntry] = (),
        samples: SampleCounts = SampleCounts(),
        gradient: GradientSize | None = None,
    ) -> None:
        """Submit a part to be committed; waits while more than two parts are pending.

        Raises:
            StoreError: an earlier part could not be written. Later parts are not written either.
        """
        self._submit(lambda: self._folder.write_part(part, rows, signals, samples, gradient))

    def write_table(
        self,
        part: int,
        table: pa.Table,
        signals: Signals,
        samples: SampleCounts = SampleCounts(),
        gradient: GradientSize | None = None,
    ) -> None:
        """Like :meth:`write`, but the part's rows are given as a table. Raises StoreError."""
        self._submit(lambda: self._folder.write_table(part, table, signals, samples, gradient))

    def write_losses(self, part: int, losses: Mapping[int, npt.NDArray[np.float32]]) -> None:
        """Submit the losses of the tokens of a part that has its scores. Raises StoreError."""
        self._submit(lambda: self._folder.losses.write(part, losses))

    def _submit(self, commit: Callable[[], None]) -> None:
        self._waiting.append(self._pool.submit(self._write, commit))
        while len(self._waiting) > _MOST_WAITING or self._waiting[0].done():
            with self._stages.stage("wait for disk"):
                self._waiting.popleft().result()
            if not self._waiting:
                return

    def finish(self) -> None:
        """Wait until every part is committed.

        Raises:
            StoreError: a part could not be written.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def _write(self, commit: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            with self._stages.stage("write"):
                commit()
        except BaseException:
            self._failed = True
            raise


@contextmanager
def background_writer(folder: ScoresFolder, stages: Stages = NO_STAGES) -> Iterator[PartWriter]:
    """A writer whose parts are all committed when the block ends, even if it ends with an exception.

    Raises:
        StoreError: a part could not be written. It is not raised if the block ends with another exception.
    """
    with ThreadPoolExecutor(1, "write") as pool:
        writer = PartWriter(folder, pool, stages)
        try:
            yield writer
        except BaseException:
            with suppress(StoreError):
                writer.finish()
            raise
        writer.finish()


__all__ = ["PartWriter", "background_writer"]
