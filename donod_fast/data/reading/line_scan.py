"""One pass over JSON Lines: count the rows and record the position of every ``CHECKPOINT_ROWS``-th row.

A row is a line that is not blank. The pass handles blocks of bytes, not lines: NumPy finds the line
ends of a block, and only lines that begin with white space are inspected one by one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from donod_fast.data.reading.encodings import BOM
from donod_fast.data.reading.source import Checkpoint

CHECKPOINT_ROWS = 1024
"""Rows between two stored byte offsets, from which reading can start near any row."""

SCAN_BYTES = 1 << 18
"""Bytes in one block: small enough for NumPy's arrays to stay in the processor's cache."""

_WHITE = np.zeros(256, dtype=bool)
_WHITE[list(b" \t\n\r\x0b\x0c")] = True  # the bytes that bytes.strip() removes


class Checkpoints:
    """Rows with the byte offset and number of their lines, by ascending row."""

    __slots__ = ("lines", "offsets", "rows")

    def __init__(self, checkpoints: Iterable[Checkpoint] = ()) -> None:
        """Take the checkpoints given, by ascending row."""
        self.rows, self.offsets, self.lines = array("q"), array("q"), array("q")
        for row, offset, line in checkpoints:
            self.append(row, offset, line)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Checkpoint]:
        return zip(self.rows, self.offsets, self.lines, strict=True)

    def append(self, row: int, offset: int, line: int) -> None:
        """Append one; its row must be the highest."""
        self.rows.append(row)
        self.offsets.append(offset)
        self.lines.append(line)

    def before(self, row: int) -> Checkpoint:
        """The nearest checkpoint at or before a row; the file's beginning if there is none."""
        index = bisect_right(self.rows, row) - 1
        return (self.rows[index], self.offsets[index], self.lines[index]) if index >= 0 else (0, 0, 1)

    def offset_after(self, row: int) -> int | None:
        """The byte offset of the first checkpoint at or after a row; None if there is none."""
        index = bisect_left(self.rows, row)
        return self.offsets[index] if index < len(self.rows) else None


def scan_lines(stream: BinaryIO) -> tuple[int, Checkpoints, int]:
    """Count the rows of JSON Lines and record the position of every ``CHECKPOINT_ROWS``-th row.

    Args:
        stream: the plain bytes from the beginning; read to its end.

    Returns:
        The number of rows, the positions, and the bytes of the longest row without its line end.
    """
    rows, line = 0, 1  # complete rows; number of the current line
    checkpoints = Checkpoints()
    longest = 0
    offset = 0  # byte offset of the block
    begin, filled = 0, False  # the current line's offset, and whether it is known not to be blank
    while block := stream.read(SCAN_BYTES):
        if not filled and block.isspace():  # many blank lines are skipped at once
            line += block.count(b"\n")
            begin = offset + end + 1 if (end := block.rfind(b"\n")) >= 0 else begin
            offset += len(block)
            continue
        content = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(content == ord("\n"))
        head = block[: ends[0]] if len(ends) else block
        filled = filled or bool((head.removeprefix(BOM) if offset == 0 else head).strip())
        if len(ends):
            starts = np.concatenate(([begin - offset], ends[:-1] + 1))
            is_row = np.ones(len(ends), dtype=bool)
            if _WHITE[content[starts[1:]]].any():
                is_row = _filled(content, starts, ends)
            is_row[0] = filled
            found = np.flatnonzero(is_row)
            for position in range(-rows % CHECKPOINT_ROWS, len(found), CHECKPOINT_ROWS):
                index = int(found[position])
                checkpoints.append(rows + position, offset + int(starts[index]), line + index)
            if len(found):
                longest = max(longest, int((ends - starts)[found].max()))
            rows += len(found)
            line += len(ends)
            begin = offset + int(ends[-1]) + 1
            filled = bool(block[ends[-1] + 1 :].strip())
        offset += len(block)
    if filled:  # the last line has no line end
        if rows % CHECKPOINT_ROWS == 0:
            checkpoints.append(rows, begin, line)
        rows += 1
        longest = max(longest, offset - begin)
    return rows, checkpoints, longest


def _filled(content: Any, starts: Any, ends: Any) -> Any:
    """Which lines of a block are not blank: those with a byte that is no white space."""
    solid = np.append(np.flatnonzero(~_WHITE[content]), len(content))
    return solid[np.searchsorted(solid, starts)] < ends
