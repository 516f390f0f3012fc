"""How many planted corruptions each method drops, compared with chance: counts and a plain-text table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from donod_fast.demo.corpus import CLEAN

ALL_KINDS = "all kinds"


@dataclass(frozen=True)
class Count:
    """``planted`` rows have one kind of corruption; the method drops ``dropped`` of them."""

    dropped: int
    planted: int


class Chance(NamedTuple):
    """How many rows a random draw drops: mean ± two standard deviations."""

    mean: float
    margin: float


@dataclass(frozen=True)
class Detection:
    """The rows that one method drops.

    Attributes:
        method: the name to print.
        kinds: the count of each kind of corruption (in order of first appearance), then
            :data:`ALL_KINDS` with their sum.
        clean: the count of the rows without a corruption.
        dropped_share: the dropped share of all rows, which is also what chance drops of each kind.
    """

    method: str
    kinds: Mapping[str, Count]
    clean: Count
    dropped_share: float

    @property
    def rows(self) -> int:
        """The number of all rows, damaged or clean."""
        return self.kinds[ALL_KINDS].planted + self.clean.planted

    def chance(self, count: Count) -> Chance:
        """How many of ``count.planted`` rows a random draw of as many rows drops (hypergeometric)."""
        share = self.dropped_share
        variance = count.planted * share * (1 - share) * (self.rows - count.planted) / max(1, self.rows - 1)
        return Chance(count.planted * share, 2 * math.sqrt(variance))


def detect(labels: Sequence[str], kept: Mapping[str, Collection[int]]) -> list[Detection]:
    """Count the planted corruptions that each method drops.

    Args:
        labels: the corruption of each row in row order, ``"none"`` for a clean row.
        kept: the rows that each method keeps; it drops all others.

    Raises:
        ValueError: no rows, or a kept row that does not exist.
    """
    if not labels:
        raise ValueError("there are no rows to report on")
    rows_of: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows_of.setdefault(label, []).append(row)
    clean = rows_of.pop(CLEAN, [])

    detections = []
    for method, rows in kept.items():
        chosen = frozenset(rows)
        if chosen and not (min(chosen) >= 0 and max(chosen) < len(labels)):
            raise ValueError(f"{method} keeps rows outside 0 … {len(labels) - 1}")
        kinds = {kind: _count(planted, chosen) for kind, planted in rows_of.items()}
        kinds[ALL_KINDS] = _count([row for planted in rows_of.values() for row in planted], chosen)
        detections.append(Detection(method, kinds, _count(clean, chosen), 1 - len(chosen) / len(labels)))
    return detections


def format_table(detections: Sequence[Detection]) -> str:
    """The counts as an aligned table: one line per method, chance in the last line, the good end of each column above.

    Chance is the mean of a random draw of as many rows, with two standard deviations: a method within this
    interval shows nothing.
    """
    first = detections[0]
    columns = [*first.kinds, "clean rows"]
    ends = [*("more is better" for _ in first.kinds), "fewer is better"]
    lines = [["", *ends], ["rows dropped", *(name.replace("_", " ") for name in columns)]]
    for detection in detections:
        counts = [*detection.kinds.values(), detection.clean]
        lines.append([detection.method, *(f"{count.dropped} of {count.planted}" for count in counts)])
    chances = map(first.chance, (*first.kinds.values(), first.clean))
    lines.append(
        [f"chance ({first.dropped_share:.0%}) ± 2 SD", *(f"{one.mean:.0f} ± {one.margin:.0f}" for one in chances)]
    )

    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join([line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))]).rstrip() for line in lines]
    rule = "-" * max(map(len, text))
    return "\n".join([*text[:2], rule, *text[2:-1], rule, text[-1]])


def _count(rows: Sequence[int], kept: Collection[int]) -> Count:
    return Count(dropped=sum(row not in kept for row in rows), planted=len(rows))
