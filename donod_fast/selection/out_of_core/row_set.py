"""A set of rows with one bit per row: about 0.1 GB for any choice among 10^9 rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_WINDOW = 1 << 20  # bytes that are read in one step
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.int64)


class RowSet:
    """A subset of the rows 0 … ``total`` − 1; iterates in rising order, in constant memory.

    Attributes:
        total: number of rows to choose from.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._bits = np.zeros(-(-total // 8), np.uint8)

    @staticmethod
    def of(rows: Any, total: int) -> RowSet:
        """A set of rows given as a list, an array or a tensor of ints; a set stays itself."""
        if isinstance(rows, RowSet):
            return rows
        found = RowSet(total)
        found.add(np.asarray(rows, np.int64))
        return found

    def add(self, rows: Any) -> None:
        """Add rows, a numpy array of ints in any order.

        Needs one byte for each row between the smallest and the largest, so the rows should be close to each other.
        """
        if not len(rows):
            return
        first, last = int(rows.min()), int(rows.max())
        if first < 0 or last >= self.total:
            raise IndexError(f"row {first if first < 0 else last} is outside 0 to {self.total - 1}")
        begin = first // 8
        flags = np.zeros(last + 1 - begin * 8, bool)
        flags[rows - begin * 8] = True
        packed = np.packbits(flags, bitorder="little")
        self._bits[begin : begin + len(packed)] |= packed

    def __and__(self, other: RowSet) -> RowSet:
        """The rows that are in both sets, which have the same ``total``."""
        both = RowSet(self.total)
        np.bitwise_and(self._bits, other._bits, out=both._bits)
        return both

    def flags(self, start: int, stop: int) -> Any:
        """Which of the rows ``start`` to ``stop`` − 1 are in the set, (stop − start,) bool."""
        bits = np.unpackbits(self._bits[start // 8 : -(-stop // 8)], bitorder="little")
        return bits[start % 8 : start % 8 + stop - start].astype(bool)

    def __len__(self) -> int:
        return sum(int(_ONES[window].sum()) for _, window in self._windows())

    def __iter__(self) -> Iterator[int]:
        for begin, window in self._windows():
            if window.any():
                yield from (np.flatnonzero(np.unpackbits(window, bitorder="little")) + begin * 8).tolist()

    def __contains__(self, row: int) -> bool:
        return 0 <= row < self.total and bool(self._bits[row // 8] >> (row % 8) & 1)

    @property
    def last(self) -> int:
        """The largest row; -1 if the set is empty."""
        for begin in range((len(self._bits) - 1) // _WINDOW * _WINDOW, -1, -_WINDOW):
            set_bytes = np.flatnonzero(self._bits[begin : begin + _WINDOW])
            if len(set_bytes):
                byte = begin + int(set_bytes[-1])
                return byte * 8 + int(self._bits[byte]).bit_length() - 1
        return -1

    def _windows(self) -> Iterator[tuple[int, Any]]:
        for begin in range(0, len(self._bits), _WINDOW):
            yield begin, self._bits[begin : begin + _WINDOW]


__all__ = ["RowSet"]
