"""Vectors whose direction is close to that of a better one: all pairs, in blocks, exactly.

The unit vectors are in a temporary file, best first. A block of them is compared with the kept vectors before it, then
within itself, by matrix products in float32. Where a product is so close to the threshold that its rounding could
decide, the cosine is computed again in float64, so that neither the blocks nor the number of cores change the result.

n vectors of which m are kept cost at most n · m · d / 2 multiplications.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from donod_fast.selection.clustering import usable
from donod_fast.selection.dedupe.near import Near, Places
from donod_fast.system.files import storage_error
from donod_fast.system.scratch import scratch_folder

BYTES_PER_ROW = 40
"""Memory for each vector: its state, and what it is near to."""

_BLOCK = 1024
_FEWEST = 64  # vectors of a block

Floats = npt.NDArray[Any]


def near_vectors(
    vectors: Iterable[tuple[Places, Floats]],
    count: int,
    threshold: float,
    *,
    memory: int = 1 << 30,
    folder: Path | None = None,
) -> Near:
    """Find vectors whose cosine with a better one is at least the threshold; see :class:`Near`.

    Args:
        vectors: pairs of (n,) places below ``count``, each once, and (n, d) vectors. Vectors of length zero and places
            that do not occur are near to nothing.
        count: number of places.
        threshold: least cosine, above 0 and at most 1.
        memory: bytes for the blocks.
        folder: where the temporary file is; None for the system's temporary folder.

    Raises:
        StoreError: the temporary file cannot be written.
    """
    parent = Path(tempfile.gettempdir()) if folder is None else folder
    there = np.zeros(count, bool)
    units: Any = None
    try:
        with scratch_folder(parent, ".donod-fast-dedupe-") as scratch:
            try:
                for places, found in vectors:
                    if units is None and count and found.shape[1]:
                        units = np.memmap(scratch / "units", np.float32, "w+", shape=(count, found.shape[1]))
                    has, lengths = usable(found)
                    there[places[has]] = True
                    if units is not None:
                        units[places[has]] = found[has] / lengths[has, None]
                if units is None or not there.any():
                    return Near.of(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), count)
                return _greedy(units, there, threshold, memory)
            finally:
                units = None  # closes the file before its folder is removed
    except OSError as error:
        raise storage_error(parent, error) from error


def _greedy(units: Any, there: npt.NDArray[np.bool_], threshold: float, memory: int) -> Near:
    count, size = units.shape
    block = max(_FEWEST, min(_BLOCK, memory // (16 * (size + _BLOCK))))
    unsure = size * 2.0**-22  # more than the rounding of a product of unit vectors in float32
    kept: list[Places] = []
    dropped: list[tuple[int, int, float]] = []
    places = np.flatnonzero(there)
    for at in range(0, len(places), block):
        own = places[at : at + block]
        left = np.ones(len(own), bool)
        mine = np.asarray(units[own])
        for earlier in kept:
            rows = np.flatnonzero(left)
            if not len(rows):
                break
            likeness = mine[rows] @ np.asarray(units[earlier]).T
            for row in np.flatnonzero((likeness >= threshold - unsure).any(1)):
                found = _first_near(likeness[row], mine[rows[row]], units, earlier, threshold, unsure)
                if found is not None:
                    dropped.append((int(own[rows[row]]), *found))
                    left[rows[row]] = False
        rows = np.flatnonzero(left)
        likeness = mine[rows] @ mine[rows].T
        for this in range(1, len(rows)):
            before = np.flatnonzero(left[rows[:this]])
            found = _first_near(likeness[this, before], mine[rows[this]], units, own[rows[before]], threshold, unsure)
            if found is not None:
                dropped.append((int(own[rows[this]]), *found))
                left[rows[this]] = False
        if left.any():
            kept.append(own[left])
            if len(kept) > 1 and len(kept[-2]) + len(kept[-1]) <= block:  # few large products instead of many small
                kept[-2:] = [np.concatenate(kept[-2:])]
    whose, near = (np.array([one[at] for one in dropped], np.int64) for at in (0, 1))
    return Near.of(whose, near, np.array([one[2] for one in dropped], np.float64), count - len(places))


def _first_near(
    likeness: Floats, vector: Floats, units: Any, places: Places, threshold: float, unsure: float
) -> tuple[int, float] | None:
    """The best place whose vector is near to this one, and their cosine in float64."""
    for at in np.flatnonzero(likeness >= threshold - unsure).tolist():
        cosine = _cosine(vector, units[places[at]])
        if likeness[at] >= threshold + unsure or cosine >= threshold:
            return int(places[at]), cosine
    return None


def _cosine(one: Floats, other: Floats) -> float:
    """In float64, at most 1; the sums do not depend on threads. Equal vectors have exactly 1."""
    if np.array_equal(one, other):
        return 1.0
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(min(1.0, (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))


__all__ = ["BYTES_PER_ROW", "near_vectors"]
