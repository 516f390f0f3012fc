"""Kinds of duplicates and of spreading, with their defaults and checks."""

from __future__ import annotations

import math

from donod_fast.errors import InputError, suggest
from donod_fast.selection.settings.names import KCENTER

NONE, EXACT, MINHASH, EMBEDDING = "none", "exact", "minhash", "embedding"
KINDS = (EXACT, MINHASH, EMBEDDING)
"""How duplicates are found."""
DEDUPES = (NONE, *KINDS)
THRESHOLDS = {MINHASH: 0.8, EMBEDDING: 0.95}
"""Default thresholds: Jaccard similarity of shingles of five words, cosine of embeddings. ``exact`` has none."""

KMEANS, FACILITY = "kmeans", "facility"
DIVERSIFIES = (KCENTER, KMEANS, FACILITY)
"""How rows are spread over the embeddings."""
POOL = 3.0
"""Candidates for each row to keep."""


def checked_threshold(kind: str, threshold: float | None) -> float | None:
    """The threshold of a kind: the given one, or its default; None for ``exact``.

    Raises:
        InputError: an unknown kind, a threshold for ``exact``, or one that is not above 0 and at most 1.
    """
    if kind not in KINDS:
        raise InputError(f"duplicates are found by {', '.join(KINDS)}, got {kind!r}{suggest(kind, KINDS)}")
    if threshold is None:
        return THRESHOLDS.get(kind)
    if kind == EXACT:
        raise InputError(f"{EXACT} finds equal texts and has no threshold; {MINHASH} finds texts that are nearly equal")
    if not (math.isfinite(threshold) and 0 < threshold <= 1):
        raise InputError(f"the threshold of {kind} must be above 0 and at most 1, got {threshold!r}")
    return threshold


def checked_pool(pool: float) -> float:
    """The number of candidates for each row to keep. Raises InputError: it is below 1 or not finite."""
    if not (math.isfinite(pool) and pool >= 1):
        raise InputError(f"--pool must be at least 1 candidate for each row to keep, got {pool!r}")
    return pool


__all__ = [
    "DEDUPES",
    "DIVERSIFIES",
    "EMBEDDING",
    "EXACT",
    "FACILITY",
    "KCENTER",
    "KINDS",
    "KMEANS",
    "MINHASH",
    "NONE",
    "POOL",
    "THRESHOLDS",
    "checked_pool",
    "checked_threshold",
]
