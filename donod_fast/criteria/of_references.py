"""Base of the criteria that compare rows with reference sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from donod_fast.criteria.base import Column, Criterion
from donod_fast.criteria.reference import ReferenceSet, open_reference_sets
from donod_fast.errors import InputError


class OfReferences(Criterion):
    """Base of the criteria that compare with reference sets. With several sets, columns are named ``column:set``.

    Attributes:
        sets: the open reference sets.

    Args:
        references: paths, globs, URLs or hub ids; empty if only the columns are needed.

    Raises:
        CorpusError: a set does not exist, cannot be read or has no rows.
        InputError: a set is standard input, or is given twice.
    """

    parts: tuple[tuple[str, str], ...] = ()  # name and description of each column of a set

    def __init__(self, references: Sequence[str] = ()) -> None:
        self.sets: tuple[ReferenceSet, ...] = open_reference_sets(references)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of each set in turn."""
        ends = [f":{one.name}" for one in self.sets] if len(self.sets) > 1 else [""]
        return tuple(Column(f"{name}{end}", text, "high") for end in ends for name, text in self.parts)

    def settings(self) -> dict[str, Any]:
        """Fingerprints of the sets' content."""
        return {"references": [one.settings() for one in self.named_sets()]}

    def width(self) -> int:
        """One number per column."""
        return len(self.columns)

    def named_sets(self) -> tuple[ReferenceSet, ...]:
        """The sets. Raises InputError if none was given."""
        if not self.sets:
            raise InputError(f"--signals {self.name} needs a reference set: --reference FILE")
        return self.sets


__all__ = ["OfReferences"]
