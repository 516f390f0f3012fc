"""Texts that share most of their shingles with a better one: MinHash finds candidates, exact counting decides.

1. A text becomes its set of shingles (``words.py``). Equal sets are one item from here on.
2. rensa computes 128 minima of hashes for each set. They are cut into bands; two sets that agree in a whole band are
   candidates. :func:`bands_of` chooses the bands so that a pair whose similarity is just the threshold is a candidate
   with a probability of 0.99 or more, and a pair that is more similar more often.
3. From the best text on, each is compared with the kept texts that are its candidates, best first: first by an estimate
   from the minima, which rules out what is far below the threshold, then by counting the shared shingles. So a pair
   that is reported has the threshold, and only a pair that is near the threshold can be missed.

Shingles and minima are in a temporary file, of which the system holds in memory what there is room for.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.selection.dedupe.near import Near, Places, first_of_equals
from donod_fast.selection.dedupe.words import Hashes, Shingler, jaccard
from donod_fast.system.files import storage_error
from donod_fast.system.scratch import scratch_folder

MINIMA = 128
BYTES_PER_ROW = 400
"""Memory for each text: place, length, hash, the arrays of a sort, and its buckets if it is in any."""

_SEED = 1
_FOUND = 0.99  # least probability that a pair at the threshold is a candidate
_SURE = 4.0  # standard deviations below the threshold at which an estimate rules a pair out
_BATCH = 4096  # texts whose minima are computed in one call
_WINDOW = 1 << 16  # sets whose bands are read in one step

Minima = npt.NDArray[np.uint32]


def bands_of(threshold: float, minima: int = MINIMA) -> tuple[int, int]:
    """How many bands of how many minima each: the longest bands that find a pair at the threshold often enough."""
    best = (minima, 1)
    for length in range(2, minima + 1):
        bands = minima // length
        if 1.0 - (1.0 - threshold**length) ** bands >= _FOUND:
            best = (bands, length)
    return best


def near_texts(texts: Iterable[tuple[int, str]], threshold: float, folder: Path | None = None) -> Near:
    """Find texts that are near to a better one; see :class:`Near`.

    The result depends on the texts and their places alone.

    Args:
        texts: (place, text), each place once, in any order.
        threshold: least Jaccard similarity of the shingles, above 0 and at most 1.
        folder: where the temporary file is; None for the system's temporary folder.

    Raises:
        InputError: rensa is not installed.
        StoreError: the temporary file cannot be written.
    """
    parent = Path(tempfile.gettempdir()) if folder is None else folder
    try:
        with scratch_folder(parent, ".donod-fast-dedupe-") as scratch:
            sets = _Sets(scratch)
            sets.add(texts)
            with sets.opened():
                return _greedy(sets, threshold)
    except OSError as error:
        raise storage_error(parent, error) from error


def minima_of(flat: Hashes, ends: Sequence[int]) -> Minima:
    """The minima of some sets, (n, :data:`MINIMA`): ``flat`` has their hashes one after the other, up to ``ends``.

    Raises:
        InputError: rensa is not installed.
    """
    offsets = np.array([0, *ends], np.uint64)
    found = _library().RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, MINIMA, _SEED)
    return np.array(found.to_rows(), np.uint32).reshape(-1, MINIMA)


class _Sets:
    """Sets of shingles and their minima, in two files; the items are numbered in input order."""

    def __init__(self, scratch: Path) -> None:
        self._shingle_file, self._minima_file = scratch / "shingles", scratch / "minima"
        self._ends = array("q", [0])
        self._places, self._digests = array("q"), bytearray()
        self.empty = 0
        _library()  # refuses before the work

    def add(self, texts: Iterable[tuple[int, str]]) -> None:
        """Write the shingles and the minima of all texts that have a word."""
        import hashlib

        shingler = Shingler()
        batch: list[Hashes] = []
        with self._shingle_file.open("wb") as shingles, self._minima_file.open("wb") as minima:
            for place, text in texts:
                found = shingler.shingles(text)
                if not len(found):
                    self.empty += 1
                    continue
                self._places.append(place)
                self._ends.append(self._ends[-1] + len(found))
                self._digests += hashlib.blake2b(found.tobytes(), digest_size=16).digest()
                batch.append(found)
                if len(batch) == _BATCH:
                    _write(batch, shingles, minima)
            _write(batch, shingles, minima)
        self.places: Places = np.array(self._places, np.int64)
        self.first = first_of_equals(self.places, np.frombuffer(bytes(self._digests), "<u8").reshape(-1, 2))
        self._digests.clear()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Read the files during a block."""
        if len(self.places):
            self._shingles: Any = np.memmap(self._shingle_file, np.uint64, "r")
            self.minima: Any = np.memmap(self._minima_file, np.uint32, "r").reshape(-1, MINIMA)
        try:
            yield
        finally:
            self._shingles = self.minima = None  # closes them before their folder is removed

    def shingles(self, item: int) -> Hashes:
        """The shingles of an item."""
        found: Hashes = self._shingles[self._ends[item] : self._ends[item + 1]]
        return found

    def sizes(self, items: Places) -> Places:
        """Numbers of shingles of some items."""
        ends = np.frombuffer(self._ends, np.int64)
        return ends[items + 1] - ends[items]

    def buckets(self, threshold: float) -> tuple[Places, Places]:
        """Which distinct items agree with another in a band: pairs of item and bucket, by the places of the items."""
        distinct = np.flatnonzero(self.first == np.arange(len(self.first)))
        bands, length = bands_of(threshold)
        items, numbers, made = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for band in range(bands if len(distinct) > 1 else 0):
            keys = np.concatenate(
                [
                    _folded(self.minima[distinct[at : at + _WINDOW], band * length : (band + 1) * length])
                    for at in range(0, len(distinct), _WINDOW)
                ]
            )
            order = np.argsort(keys, kind="stable")
            changes = np.flatnonzero(np.diff(keys[order])) + 1
            begins, stops = np.r_[0, changes], np.r_[changes, len(order)]
            shared = np.repeat(stops - begins > 1, stops - begins)
            number = np.repeat(np.cumsum(stops - begins > 1) - 1, stops - begins)[shared]
            items.append(distinct[order[shared]])
            numbers.append(number + made)
            made += int((stops - begins > 1).sum())
        item, bucket = np.concatenate(items), np.concatenate(numbers)
        by_place = np.argsort(self.places[item], kind="stable")
        return item[by_place], bucket[by_place]


def _greedy(sets: _Sets, threshold: float) -> Near:
    item, bucket = sets.buckets(threshold)
    begins = np.r_[0, np.flatnonzero(np.diff(item)) + 1] if len(item) else np.zeros(0, np.int64)
    kept_of = np.arange(len(sets.places))  # of each item the kept one that it is near to, or itself
    similarity = np.ones(len(sets.places))
    least = threshold - _SURE * math.sqrt(threshold * (1.0 - threshold) / MINIMA)
    members: dict[int, array[int]] = {}  # kept items by bucket, best first
    for begin, stop in zip(begins.tolist(), [*begins[1:].tolist(), len(item)], strict=False):
        this, numbers = int(item[begin]), bucket[begin:stop].tolist()
        known = [np.frombuffer(members[number], np.int64) for number in numbers if number in members]
        if known:
            others = np.unique(np.concatenate(known))
            known.clear()
            found = _nearest(sets, this, others, threshold, least)
            if found is not None:
                kept_of[this], similarity[this] = found
                continue
        for number in numbers:
            members.setdefault(number, array("q")).append(this)
    # An item with the shingles of another shares its fate.
    same = sets.first != np.arange(len(sets.first))
    kept_of[same], similarity[same] = kept_of[sets.first[same]], similarity[sets.first[same]]
    dropped = np.flatnonzero(kept_of != np.arange(len(kept_of)))
    return Near.of(sets.places[dropped], sets.places[kept_of[dropped]], similarity[dropped], sets.empty)


def _nearest(sets: _Sets, this: int, others: Places, threshold: float, least: float) -> tuple[int, float] | None:
    """The best of some kept items that is near to this one, and their similarity."""
    own = sets.shingles(this)
    sizes = sets.sizes(others)
    fits = np.minimum(sizes, len(own)) >= threshold * np.maximum(sizes, len(own))
    others = others[fits]
    estimate = (sets.minima[others] == sets.minima[this]).mean(1)
    others = others[estimate >= least]
    for other in others[np.argsort(sets.places[others], kind="stable")].tolist():
        found = jaccard(own, sets.shingles(other))
        if found >= threshold:
            return other, found
    return None


def _folded(band: Minima) -> Hashes:
    """One 64-bit key for each row of a band, (n, length) → (n,); a chance collision only adds a candidate."""
    key = np.zeros(len(band), np.uint64)
    for column in band.T:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def _write(batch: list[Hashes], shingles: BinaryIO, minima: BinaryIO) -> None:
    if batch:
        flat = np.concatenate(batch)
        shingles.write(flat.tobytes())
        minima.write(minima_of(flat, np.cumsum([len(one) for one in batch]).tolist()).tobytes())
        batch.clear()


def _library() -> Any:
    try:
        return importlib.import_module("rensa")
    except ImportError:
        raise InputError("near-duplicates by MinHash need rensa: pip install 'donod-fast[dedupe]'") from None


__all__ = ["BYTES_PER_ROW", "MINIMA", "bands_of", "minima_of", "near_texts"]
