"""Duplicates among the ranked rows of a scores folder, the best of each set first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.selection.dedupe import near_of_texts
from donod_fast.selection.dedupe.near import Near, Places
from donod_fast.selection.settings.variety import EMBEDDING, EXACT, checked_threshold
from donod_fast.system.wording import byte_size, plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

_ORDER_BYTES = 32
"""Memory for each ranked row besides: the order, the place of each row, and the sorts of both."""


def near_of_rows(
    folder: ScoresFolder,
    rows: Places,
    kind: str,
    threshold: float | None,
    *,
    model: str | None = None,
    memory: int,
    temp_dir: Path | None = None,
) -> Near:
    """Find the rows that are near to a better one.

    Args:
        folder: a finished folder.
        rows: (n,) row numbers, best first.
        kind: one of ``settings.variety.KINDS``.
        threshold: least similarity; None for the default of the kind.
        model: sentence-transformers model for ``embedding``; None for the column ``embedding``.
        memory: memory limit in bytes.
        temp_dir: folder for shingles or vectors; None for the system's temporary folder.

    Returns:
        Places in ``rows``.

    Raises:
        InputError: a bad threshold, no embeddings, too little memory, or a package is not installed.
        CorpusError: the records can no longer be read.
        StoreError: the temporary folder cannot be written, or the scores folder is damaged.
    """
    least = checked_threshold(kind, threshold)
    place = np.full(folder.rows, -1, np.int64)
    place[rows] = np.arange(len(rows))
    if kind == EMBEDDING:
        from donod_fast.selection.dedupe import near_vectors
        from donod_fast.selection.embeddings import stream_embeddings

        _refuse_many(kind, len(rows), near_vectors.BYTES_PER_ROW, memory)
        assert least is not None
        found = stream_embeddings(folder, f"--dedupe {EMBEDDING}", model, place >= 0)
        placed = ((place[these], vectors) for these, vectors in found)
        return near_vectors.near_vectors(placed, len(rows), least, memory=memory // 4, folder=temp_dir)
    from donod_fast.selection.dedupe import near_texts, same_texts

    module = same_texts if kind == EXACT else near_texts
    _refuse_many(kind, len(rows), module.BYTES_PER_ROW, memory)
    return near_of_texts(_placed_texts(folder, place), kind, least, temp_dir)


def _placed_texts(folder: ScoresFolder, place: npt.NDArray[np.int64]) -> Iterator[tuple[int, str]]:
    from donod_fast.selection.dedupe.record_texts import record_texts

    for row, text in record_texts(folder, lambda row: bool(place[row] >= 0)):
        yield int(place[row]), text


def _refuse_many(kind: str, rows: int, each: int, memory: int) -> None:
    needed = rows * (each + _ORDER_BYTES)
    if needed > memory:
        raise InputError(
            f"--dedupe {kind} takes about {byte_size(needed)} of memory for {plural(rows, 'ranked row')}; raise "
            "--memory"
        )


__all__ = ["near_of_rows"]
