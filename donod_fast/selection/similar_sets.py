"""Sets of similar rows of which one is kept: what ``--dedupe`` and ``--diversify`` found, for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SimilarSet:
    """A kept row and the rows that it stands for.

    Attributes:
        kept: the row that is kept.
        dropped: the others, rising.
        similarity: of each of them to the kept row.
    """

    kept: int
    dropped: tuple[int, ...]
    similarity: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SimilarSets:
    """All sets of one kind; iterates over :class:`SimilarSet` by rising kept row.

    Attributes:
        kind: ``exact``, ``minhash`` or ``embedding`` (duplicates), or ``kcenter``, ``kmeans`` or ``facility``.
        threshold: least similarity; None if the kind has none.
        kept: (m,) the kept row of each dropped one.
        dropped: (m,) the dropped rows, each once.
        similarity: (m,) float64: share of equal shingles, or cosine; 1 for equal texts.
        compared: number of rows that were compared: the ranked rows, or the candidates.
        without: number of those that have nothing to compare, such as an embedding; they are in no set.
    """

    kind: str
    threshold: float | None
    kept: Rows
    dropped: Rows
    similarity: npt.NDArray[np.float64]
    compared: int = 0
    without: int = 0

    def __len__(self) -> int:
        """Number of sets."""
        return len(np.unique(self.kept))

    @property
    def rows(self) -> int:
        """Number of rows in any set, the kept ones included."""
        return len(self) + len(self.dropped)

    def __iter__(self) -> Iterator[SimilarSet]:
        order = np.lexsort((self.dropped, self.kept))
        kept = self.kept[order]
        begins = np.flatnonzero(np.diff(kept, prepend=-1)).tolist()
        for begin, end in zip(begins, [*begins[1:], len(kept)], strict=False):  # no set: there is an end too many
            members = order[begin:end]
            yield SimilarSet(
                int(kept[begin]), tuple(self.dropped[members].tolist()), tuple(self.similarity[members].tolist())
            )

    def as_json(self) -> dict[str, Any]:
        """Kind, threshold and counts."""
        return {
            "kind": self.kind,
            "threshold": self.threshold,
            "sets": len(self),
            "rows": self.rows,
            "dropped": len(self.dropped),
            "compared": self.compared,
            "without": self.without,
        }


__all__ = ["SimilarSet", "SimilarSets"]
