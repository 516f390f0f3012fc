"""``LazyScorer``: a scorer that can be pickled, and loads its model at the first row in each process."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from donod_fast.adapters.columns import host_columns
from donod_fast.scoring.spec import ScorerSpec

if TYPE_CHECKING:
    from donod_fast.scores.rows import ScoreRow
    from donod_fast.scoring.scorer import Scorer

_loaded: dict[tuple[int, bytes], Scorer] = {}
"""The scorers of this process, by process and spec: a forked process must not use its parent's model."""
_lock = threading.Lock()
_forked = False
"""Whether this process is a fork: GNU OpenMP hangs in a fork of a process that has used several threads."""


def _note_fork() -> None:
    global _forked, _lock
    _forked, _lock = True, threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_note_fork)


@dataclass(frozen=True)
class LazyScorer:
    """Scores rows that a host gives, one batch at a time. Only the settings are pickled.

    Attributes:
        spec: how to load the scorer.
    """

    spec: ScorerSpec

    def scorer(self, device: str | None = None) -> Scorer:
        """The scorer of this process, which is loaded at the first call.

        Args:
            device: where to load it instead of ``spec.device``; None for that.

        Raises:
            ModelError: it cannot be loaded or scored with.
        """
        spec = self.spec if device is None or self.spec.device_map is not None else self.spec.on(device)
        key = (os.getpid(), hashlib.sha256(pickle.dumps(spec)).digest())
        with _lock:
            if key not in _loaded:
                if _forked:
                    _one_thread()
                _loaded[key] = spec.load()
            return _loaded[key]

    def score(
        self, rows: Sequence[Mapping[str, Any]], *, first: int | None = 0, device: str | None = None
    ) -> list[ScoreRow]:
        """Score rows: one result each, in their order; a row that cannot be scored has a status.

        Args:
            rows: the records, as a corpus file would hold them.
            first: number of the first row, for ``ScoreRow.row`` and messages; None if the host does not say it, then
                rows are numbered within the batch, and messages say so.
            device: as in :meth:`scorer`.

        Raises:
            ModelError: the model cannot be loaded or scored with.
        """
        from donod_fast.data.types import Record

        start, end = (0, " of a batch") if first is None else (first, "")
        records = [
            Record(start + at, "the host's rows", f"row {start + at}{end}", dict(row)) for at, row in enumerate(rows)
        ]
        return self.scorer(device).score_records(records) if records else []

    def columns(
        self, rows: Sequence[Mapping[str, Any]], *, first: int | None = 0, device: str | None = None
    ) -> list[dict[str, Any]]:
        """Score rows, and give each the columns of :func:`~donod_fast.adapters.columns.host_columns`."""
        if not rows:
            return []
        found = self.score(rows, first=first, device=device)
        signals = self.scorer(device).sample_scorer.signals.columns
        return [host_columns(row, self.spec.update.lr, tuple(signals)) for row in found]


def device_of_rank(rank: int | None) -> str | None:
    """``cuda:N`` for the process of this rank, the devices in turn; None without a rank or without a device."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return None if rank is None or not count else f"cuda:{rank % count}"


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


__all__ = ["LazyScorer", "device_of_rank"]
