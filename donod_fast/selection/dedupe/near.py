"""Which items are near to a better one: the result that all kinds of comparison share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Near:
    """Items that are dropped because they are near to a kept one. Places are numbers, the lower the better.

    The rule is greedy: from the best place on, an item is dropped if it is near to a kept item, and kept if not. So no
    two kept items are near to each other, and each dropped item is near to the best kept one that it could be near to.

    Attributes:
        dropped: (m,) places of the dropped items, rising.
        kept: (m,) for each the place of the kept item that it is near to, the best of these.
        similarity: (m,) float64, their similarity, at least the threshold.
        empty: number of items that have nothing to compare, such as a text without words; they are kept.
    """

    dropped: Places
    kept: Places
    similarity: npt.NDArray[np.float64]
    empty: int = 0

    @staticmethod
    def of(dropped: Places, kept: Places, similarity: npt.NDArray[np.float64], empty: int = 0) -> Near:
        """Sort by the places of the dropped items."""
        order = np.argsort(dropped, kind="stable")
        return Near(dropped[order], kept[order], similarity[order], empty)


def first_of_equals(places: Places, keys: npt.NDArray[np.uint64]) -> Places:
    """For each item the index of the item with equal keys that has the best place.

    Args:
        places: (n,) distinct places.
        keys: (n, 2).
    """
    order = np.lexsort((places, keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return first


__all__ = ["Near", "Places", "first_of_equals"]
