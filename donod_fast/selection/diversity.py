"""Rows that are spread over the embeddings, chosen among the best by a method.

The candidates are given best first. All three choose k of them:

- ``kcenter``: the best candidate, then each time the candidate that is farthest from all chosen ones (``coverage.py``).
- ``kmeans``: K-Means makes k clusters; each gives its best candidate. A cluster without a candidate (fewer distinct
  vectors than k) is replaced by the best candidate that is left.
- ``facility``, facility location: each time the candidate that raises the sum over all candidates of the cosine with
  the nearest chosen one by most; negative cosines count as 0. The greedy choice has at least 63 % of the largest sum.
  It is lazy: a gain is computed again only where it could be the largest.

Candidates without an embedding are chosen last, best first. Ties go to the better candidate. All run on one thread, so
the choice does not depend on the number of cores.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError, suggest
from donod_fast.selection.clustering import cluster_labels, one_thread, usable
from donod_fast.selection.coverage import farthest_first
from donod_fast.selection.settings.names import KCENTER
from donod_fast.selection.settings.variety import DIVERSIFIES, FACILITY, KMEANS

_BLOCK = 1024

Floats = npt.NDArray[Any]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spread:
    """Chosen candidates, and which of them each other candidate is nearest to.

    Attributes:
        chosen: (k,) places among the candidates, rising.
        others: (m,) places of the candidates that have an embedding and are not chosen, rising.
        nearest: (m,) the chosen place with the largest cosine, the best of equals.
        cosine: (m,) float64, that cosine.
        without: number of candidates without an embedding.
    """

    chosen: Places
    others: Places
    nearest: Places
    cosine: npt.NDArray[np.float64]
    without: int


def spread(kind: str, embeddings: Floats, count: int, *, seed: int = 0) -> Spread:
    """Choose ``count`` candidates.

    Args:
        kind: one of ``settings.variety.DIVERSIFIES``.
        embeddings: (n, d) of the candidates, best first, of any length except zero; NaN if there is none.
        count: k, from 0 to n.
        seed: of K-Means.

    Raises:
        InputError: an unknown kind, a count out of range, or scikit-learn is not installed.
    """
    if kind not in DIVERSIFIES:
        raise InputError(f"rows are spread by {', '.join(DIVERSIFIES)}, got {kind!r}{suggest(kind, DIVERSIFIES)}")
    if not 0 <= count <= len(embeddings):
        raise InputError(f"{count} rows cannot be chosen among {len(embeddings)} candidates")
    there, lengths = usable(embeddings)
    places = np.flatnonzero(there)
    units = (embeddings[places] / lengths[places, None]).astype(np.float32)
    wanted = min(count, len(places))
    with one_thread(f"--diversify {kind}"):
        if wanted == len(places):
            picked = np.arange(wanted)
        elif kind == KCENTER:
            picked = farthest_first(units, wanted, 0)[0]
        elif kind == KMEANS:
            picked = _best_of_clusters(units, wanted, seed)
        else:
            picked = _facility_location(units, wanted)
        picked = np.sort(picked)
        rest = np.setdiff1d(np.arange(len(places)), picked) if len(picked) else picked
        nearest, cosine = _nearest(units, picked, rest)
    missing = np.flatnonzero(~there)
    chosen = np.sort(np.concatenate([places[picked], missing[: count - wanted]]))
    return Spread(chosen, places[rest], places[picked[nearest]], cosine, len(missing))


def _best_of_clusters(units: Floats, count: int, seed: int) -> Places:
    if not count:
        return np.zeros(0, np.int64)
    labels = cluster_labels(units, count, seed % 2**32, f"--diversify {KMEANS}")  # KMeans takes 32 bits
    best = np.unique(labels, return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(units)), best)
    return np.concatenate([best, rest[: count - len(best)]])


def _facility_location(units: Floats, count: int) -> Places:
    """Lazy greedy: a gain never grows, so a candidate whose gain was just computed and leads is the best of all."""
    nearest = np.zeros(len(units), np.float64)
    # The first bounds come from blocks, whose rounding may differ from that of single products.
    bounds = np.concatenate(
        [np.maximum(units @ units[at : at + _BLOCK].T, 0.0).sum(0, np.float64) for at in range(0, len(units), _BLOCK)]
    )
    heap = [(-bound * (1 + 1e-4) - 1e-6, place, -1) for place, bound in enumerate(bounds.tolist())]
    heapq.heapify(heap)
    picked: list[int] = []
    while len(picked) < count:
        gain, place, computed = heapq.heappop(heap)
        if computed == len(picked):
            picked.append(place)
            np.maximum(nearest, _likeness(units, place), out=nearest)
        else:
            gain = -float(np.maximum(_likeness(units, place) - nearest, 0.0).sum())
            heapq.heappush(heap, (gain, place, len(picked)))
    return np.array(picked, np.int64)


def _likeness(units: Floats, place: int) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = (units @ units[place]).astype(np.float64)
    return found


def _nearest(units: Floats, picked: Places, rest: Places) -> tuple[Places, npt.NDArray[np.float64]]:
    """For each of the rest the index of the nearest picked one, and their cosine."""
    nearest, cosine = np.zeros(len(rest), np.int64), np.full(len(rest), -np.inf)
    for begin in range(0, len(rest), _BLOCK):
        own = units[rest[begin : begin + _BLOCK]]
        here = slice(begin, begin + len(own))
        for start in range(0, len(picked), _BLOCK):
            likeness = own @ units[picked[start : start + _BLOCK]].T
            found = likeness.argmax(1)
            value = likeness[np.arange(len(own)), found].astype(np.float64)
            better = value > cosine[here]
            nearest[here][better], cosine[here][better] = found[better] + start, value[better]
    return nearest, np.minimum(cosine, 1.0)


__all__ = ["DIVERSIFIES", "FACILITY", "KCENTER", "KMEANS", "Spread", "spread"]
