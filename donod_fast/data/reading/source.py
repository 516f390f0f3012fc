"""The interface of an input, independent of its format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from donod_fast.data.types import Record

Checkpoint = tuple[int, int, int]
"""(row within the source, byte offset of its line, 1-based number of its line)."""


class Source(Protocol):
    """One input (a file, a dataset, a list of rows) whose rows have been counted."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def digest(self) -> str:
        """A hash that changes when the rows do."""

    @property
    def reads_anywhere(self) -> bool:
        """Whether reading can start at any row without reading the rows before it. What has checkpoints or row groups
        need not say so.
        """

    def describe(self) -> dict[str, Any]:
        """The facts needed to open it again and to check that it has not changed (JSON types only)."""

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream the rows ``start <= i < stop`` of this source as records.

        Args:
            first_row: the corpus row of this source's row 0.
            start: first row, counted within this source.
            stop: one past the last row, at most ``rows``.

        Raises:
            CorpusError: the input cannot be read, or has changed since its rows were counted. A change
                while reading is detected after the last row.
        """

    def checkpoint(self, row: int) -> Checkpoint | None:
        """The nearest position at or before a row where reading can start; None if there are no such
        positions (all inputs except plain JSON Lines).
        """

    def checkpoint_after(self, row: int) -> int:
        """The byte offset of the first such position at or after a row, or the file's size; -1 if it has none."""

    def row_groups(self) -> Sequence[int] | None:
        """The rows of each row group, in order; None if there are no row groups (all inputs except Parquet).

        Raises:
            CorpusError: the file had to be read for this, and cannot be read or has changed.
        """


class Unmarked:
    """Base class of sources that can only be read from their beginning."""

    __slots__ = ()

    @property
    def reads_anywhere(self) -> bool:
        """False: see :class:`Source`."""
        return False

    def checkpoint(self, row: int) -> Checkpoint | None:
        """None: see :class:`Source`."""
        return None

    def checkpoint_after(self, row: int) -> int:
        """-1: see :class:`Source`."""
        return -1

    def row_groups(self) -> Sequence[int] | None:
        """None: see :class:`Source`."""
        return None


class Anywhere(Unmarked):
    """Base class of sources that can be read from any row at the same cost."""

    __slots__ = ()

    @property
    def reads_anywhere(self) -> bool:
        """True: see :class:`Source`."""
        return True


@dataclass(frozen=True, slots=True)
class KnownFile:
    """Facts about a file from an earlier run, which save a second pass over it.

    Attributes:
        entry: its entry in the description of the corpus (:meth:`Source.describe`).
        checkpoints: positions where reading can start, by ascending row (plain JSON Lines; else empty).
    """

    entry: Mapping[str, Any]
    checkpoints: Sequence[Checkpoint] = ()
