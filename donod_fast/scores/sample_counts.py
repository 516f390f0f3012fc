"""What was used of the records of a part: columns that no score depends on, rewrites, turns left out by flags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from donod_fast.data.types import TokenizedSample
from donod_fast.system.wording import plural

MOST_NAMES = 256
"""Names that are counted one by one; the rest is counted together under ``OTHERS``."""

OTHERS = "…"


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Counts over some rows; those of two sets of rows can be added.

    Attributes:
        rows: number of rows counted.
        unused: columns that no score depends on, with the number of rows that have them.
        recasts: rewrites by name, with the number of rows.
        excluded_turns: assistant turns that the records' own flags leave out.
        excluded_rows: rows with such turns.
    """

    rows: int = 0
    unused: Mapping[str, int] = field(default_factory=dict)
    recasts: Mapping[str, int] = field(default_factory=dict)
    excluded_turns: int = 0
    excluded_rows: int = 0

    @staticmethod
    def of(samples: Iterable[TokenizedSample]) -> SampleCounts:
        """Count rows."""
        rows = turns = excluded = 0
        unused: Counter[str] = Counter()
        recasts: Counter[str] = Counter()
        for sample in samples:
            rows += 1
            unused.update(set(sample.unused))
            recasts.update(set(sample.recasts))
            turns += sample.excluded
            excluded += sample.excluded > 0
        return SampleCounts(rows, _most(unused), _most(recasts), turns, excluded)

    def __add__(self, other: SampleCounts) -> SampleCounts:
        """The counts over the rows of both."""
        return SampleCounts(
            self.rows + other.rows,
            _most(Counter(self.unused) + Counter(other.unused)),
            _most(Counter(self.recasts) + Counter(other.recasts)),
            self.excluded_turns + other.excluded_turns,
            self.excluded_rows + other.excluded_rows,
        )

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> SampleCounts:
        """Read the fields from JSON values."""
        return SampleCounts(**content)

    def lines(self, rows: int) -> list[str]:
        """The counts for the reader, a line for each kind that occurs.

        Args:
            rows: rows of the whole; where fewer were counted, the lines say so.
        """
        lines = []
        if self.unused:
            lines.append(f"columns no score depends on: {_listed(self.unused)}")
        if self.recasts:
            lines.append(f"rewritten for the chat template: {_listed(self.recasts)}")
        if self.excluded_turns:
            lines.append(
                f"left out by the records' own flags: {plural(self.excluded_turns, 'turn')} "
                f"in {plural(self.excluded_rows, 'row')}"
            )
        if lines and self.rows < rows:
            lines.append(f"(counted in {self.rows:,} of {rows:,} rows: an earlier release scored the others)")
        return lines


def _most(counts: Counter[str]) -> dict[str, int]:
    """The counts in the order of their names; of too many names the rarest are counted together."""
    others = counts.pop(OTHERS, 0)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    others += sum(rows for _, rows in ordered[MOST_NAMES:])
    found = dict(sorted(ordered[:MOST_NAMES]))
    return {**found, OTHERS: others} if others else found


def _listed(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (pair[0] == OTHERS, -pair[1], pair[0]))
    return ", ".join(f"{name} ({plural(rows, 'row')})" for name, rows in ordered)


__all__ = ["SampleCounts"]
