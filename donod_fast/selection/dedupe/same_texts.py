"""Texts that are equal but for white space and Unicode's ways of writing a character."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from donod_fast.selection.dedupe.near import Near, first_of_equals
from donod_fast.selection.dedupe.words import normalised, text_hash

BYTES_PER_ROW = 120
"""Memory for each text: place, hash and the arrays of a sort."""


def same_texts(texts: Iterable[tuple[int, str]]) -> Near:
    """Find texts that equal a better one; see :class:`Near`.

    Args:
        texts: (place, text), each place once, in any order.
    """
    places, hashes = array("q"), bytearray()
    empty = 0
    for place, text in texts:
        if not normalised(text):
            empty += 1
            continue
        places.append(place)
        hashes += text_hash(text)
    at = np.array(places, np.int64)
    first = first_of_equals(at, np.frombuffer(bytes(hashes), "<u8").reshape(-1, 2))
    dropped = np.flatnonzero(first != np.arange(len(first)))
    return Near.of(at[dropped], at[first[dropped]], np.ones(len(dropped)), empty)


__all__ = ["BYTES_PER_ROW", "same_texts"]
