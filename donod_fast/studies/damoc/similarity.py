"""Similarities between rows, that the distribution-aware filters are made of.

The similarity of two rows is the cosine of their embeddings, clipped at 0: rows that point away from each other count
as unlike, not as less than unlike. Without the clip graph-cut would be neither monotone nor bounded from below. The
embeddings are those of :func:`~donod_fast.models.sentence_embeddings.embed_texts` over the rows' questions, a scores
folder's column ``embedding``, or any others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from donod_fast.models.sentence_embeddings import Embeddings

WORKSPACE_BYTES = 64 * 2**20
"""What a block of similarities may hold."""


def similarity(some: Embeddings, others: Embeddings) -> npt.NDArray[np.float32]:
    """(a, n) float32 cosines of (a, d) and (n, d) unit rows, clipped at 0."""
    found: npt.NDArray[np.float32] = some @ others.T
    np.maximum(found, np.float32(0.0), out=found)
    return found


def similarity_blocks(
    some: Embeddings, others: Embeddings, *, workspace_bytes: int = WORKSPACE_BYTES
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The (a, n) similarities of (a, d) and (n, d) unit rows, some rows at a time: the first one's place, (rows, n)."""
    count = max(1, workspace_bytes // (4 * max(1, len(others))))
    for start in range(0, len(some), count):
        yield start, similarity(some[start : start + count], others)


__all__ = ["WORKSPACE_BYTES", "similarity", "similarity_blocks"]
