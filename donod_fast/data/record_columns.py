"""A record's columns, which remember what is read of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

NAME_CHARACTERS = 80
"""Longer names of columns are cut where they are listed."""

MOST_NAMES = 1000
"""Columns of a record that are listed."""


class Columns(Mapping[str, Any]):
    """The columns of a record without those that are null.

    Looking up a value counts as reading the column; asking whether a column is there does not. What was never read, no
    score can depend on.

    Attributes:
        excluded: number of assistant turns that the record's own flags leave out.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._values = {name: value for name, value in data.items() if value is not None}
        self._read: set[str] = set()
        self._left_out: list[str] = []
        self.excluded = 0

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def peek(self, name: str) -> Any:
        """The value of a column without reading it, to decide how to read the record; None if it is absent."""
        return self._values.get(name)

    def read(self, name: str) -> None:
        """Note that a column was read."""
        self._read.add(name)

    def was_read(self, name: str) -> bool:
        """Whether a column was read."""
        return name in self._read

    def leave_out(self, what: str) -> None:
        """Name something in a column that was read and is not used, such as the images of its messages."""
        if what not in self._left_out:
            self._left_out.append(what)

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the columns that were not read, and of what was left out of the others; in the record's order.
        Only so many of a record with very many columns.
        """
        names = (name for name in self._values if name not in self._read)
        return tuple(_short(name) for name in (*islice(names, MOST_NAMES), *self._left_out))


def first_of(columns: Columns, names: tuple[str, ...]) -> str | None:
    """The first of these columns that the record has, None if it has none of them."""
    return next((name for name in names if name in columns), None)


def _short(name: object) -> str:
    text = str(name).encode("utf-8", errors="backslashreplace").decode("utf-8")
    return text if len(text) <= NAME_CHARACTERS else text[:NAME_CHARACTERS] + "…"


__all__ = ["Columns", "first_of"]
