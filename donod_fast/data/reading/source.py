"""What every input offers to the corpus, whatever its format."""

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
        """How many rows it holds."""

    @property
    def digest(self) -> str:
        """A hash that changes when the rows do."""

    def describe(self) -> dict[str, Any]:
        """Whatever is needed to open it again and to see that it is the same (JSON types only)."""

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream the rows ``start <= i < stop`` of this source as records.

        Args:
            first_row: the corpus row of this source's row 0.
            start: first row, counted within this source.
            stop: one past the last row, at most ``rows``.

        Raises:
            CorpusError: the input cannot be read, or has changed since its rows were counted. A change
                during the reading is found when the last row has been taken.
        """

    def checkpoint(self, row: int) -> Checkpoint | None:
        """The nearest place at or before a row where reading can start; None where it has no such places
        (all but plain JSON Lines).
        """

    def checkpoint_after(self, row: int) -> int:
        """The byte offset of the first such place at or after a row, or the file's size; -1 where it has none."""

    def row_groups(self) -> Sequence[int] | None:
        """The rows of each row group, in order; None where there are no row groups (all but Parquet).

        Raises:
            CorpusError: the file must be looked at for it, and cannot be read or has changed.
        """


class Unmarked:
    """The part of a source that has no places to start reading at, to inherit from."""

    __slots__ = ()

    def checkpoint(self, row: int) -> Checkpoint | None:
        """None: see :class:`Source`."""
        return None

    def checkpoint_after(self, row: int) -> int:
        """-1: see :class:`Source`."""
        return -1

    def row_groups(self) -> Sequence[int] | None:
        """None: see :class:`Source`."""
        return None


@dataclass(frozen=True, slots=True)
class KnownFile:
    """What an earlier run knew of a file, to be spared a second pass over it.

    Attributes:
        entry: its entry in the description of the corpus (:meth:`Source.describe`).
        checkpoints: places where reading can start, by ascending row (plain JSON Lines; else empty).
    """

    entry: Mapping[str, Any]
    checkpoints: Sequence[Checkpoint] = ()
