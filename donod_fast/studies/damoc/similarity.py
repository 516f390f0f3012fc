"""Similarities between rows for the distribution-aware filters.

The similarity of two rows is the cosine of their embeddings, clipped at 0: rows with opposite embeddings count as
dissimilar, not as negatively similar. Without the clip graph-cut would be neither monotone nor bounded from below. The
embeddings may come from :func:`~donod_fast.models.sentence_embeddings.embed_texts` over the rows' questions, from the
column ``embedding`` of a scores folder, or from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from donod_fast.models.sentence_embeddings import Embeddings

WORKSPACE_BYTES = 64 * 2**20
"""Maximum size of a block of similarities."""


def similarity(some: Embeddings, others: Embeddings) -> npt.NDArray[np.float32]:
    """(a, n) float32 cosines of (a, d) and (n, d) unit rows, clipped at 0."""
    found: npt.NDArray[np.float32] = some @ others.T
    np.maximum(found, np.float32(0.0), out=found)
    return found


def similarity_blocks(
    some: Embeddings, others: Embeddings, *, workspace_bytes: int = WORKSPACE_BYTES
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield the (a, n) similarities of (a, d) and (n, d) unit rows in blocks: index of the first row, (rows, n)."""
    count = max(1, workspace_bytes // (4 * max(1, len(others))))
    for start in range(0, len(some), count):
        yield start, similarity(some[start : start + count], others)


__all__ = ["WORKSPACE_BYTES", "similarity", "similarity_blocks"]
