"""Duplicates and near-duplicates: of each set of rows that say the same, one is kept.

``exact`` compares normalised texts (``same_texts.py``), ``minhash`` the shingles of texts (``near_texts.py``),
``embedding`` vectors (``near_vectors.py``). All three are greedy from the best row on; see :class:`Near`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from donod_fast.errors import InputError, suggest
from donod_fast.selection.dedupe.near import Near
from donod_fast.selection.settings.variety import (
    EMBEDDING,
    EXACT,
    KINDS,
    MINHASH,
    THRESHOLDS,
    checked_threshold,
)


def duplicate_sets(
    texts: Iterable[tuple[int, str]], kind: str, threshold: float | None = None, *, folder: Path | None = None
) -> list[list[int]]:
    """Sets of rows whose texts are the same or nearly so.

    The first row of a set is the one that all others of the set are near to: from the lowest row on, a row that is near
    to a kept row joins its set, and else it is kept. Memory grows with the number of rows and not with their length.

    Args:
        texts: (row, text), each row once, in any order; see ``words.sample_text``.
        kind: ``exact`` or ``minhash``.
        threshold: for ``minhash``, the least Jaccard similarity; None for the default of :data:`THRESHOLDS`.
        folder: for a temporary file; None for the system's temporary folder.

    Returns:
        The rows of each set of two or more, rising; the sets by their first rows.

    Raises:
        InputError: a bad kind or threshold, or a package is not installed.
        StoreError: the temporary file cannot be written.
    """
    near = near_of_texts(texts, kind, checked_threshold(kind, threshold), folder)
    sets: dict[int, list[int]] = {}
    for kept, dropped in zip(near.kept.tolist(), near.dropped.tolist(), strict=True):
        sets.setdefault(kept, [kept]).append(dropped)
    return [sets[first] for first in sorted(sets)]


def near_of_texts(
    texts: Iterable[tuple[int, str]], kind: str, threshold: float | None, folder: Path | None = None
) -> Near:
    """Texts that are near to a better one: :func:`duplicate_sets` with places instead of rows.

    Raises:
        InputError: a kind that does not compare texts, or a package is not installed.
        StoreError: the temporary file cannot be written.
    """
    if kind == EXACT:
        from donod_fast.selection.dedupe.same_texts import same_texts

        return same_texts(texts)
    if kind == MINHASH and threshold is not None:
        from donod_fast.selection.dedupe.near_texts import near_texts

        return near_texts(texts, threshold, folder)
    raise InputError(f"texts are compared by {EXACT} or {MINHASH}, got {kind!r}{suggest(kind, (EXACT, MINHASH))}")


__all__ = [
    "EMBEDDING",
    "EXACT",
    "KINDS",
    "MINHASH",
    "THRESHOLDS",
    "Near",
    "checked_threshold",
    "duplicate_sets",
    "near_of_texts",
]
