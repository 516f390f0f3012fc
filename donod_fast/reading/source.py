"""What every input offers to the corpus, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from donod_fast.samples import Record


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
            CorpusError: the input cannot be read, or has changed since its rows were counted.
        """
