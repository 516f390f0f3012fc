"""How many planted corruptions each method drops, beside what chance would drop: a plain-text table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from donod_fast.demo.corpus import CLEAN

ALL_KINDS = "all kinds"


@dataclass(frozen=True)
class Count:
    """Of ``planted`` rows with one corruption, ``dropped`` are not in the kept part."""

    dropped: int
    planted: int


@dataclass(frozen=True)
class Detection:
    """What one method drops.

    Attributes:
        method: the name to print.
        kinds: for each kind of corruption (in order of first appearance), its count; then
            :data:`ALL_KINDS` for their sum.
        clean: the same of the rows without a corruption, dropped for nothing.
        dropped_share: the part of all rows that is dropped: what chance would give for each kind.
    """

    method: str
    kinds: Mapping[str, Count]
    clean: Count
    dropped_share: float


def detect(labels: Sequence[str], kept: Mapping[str, Collection[int]]) -> list[Detection]:
    """Counts, for each method, the planted corruptions in its dropped part.

    Args:
        labels: the corruption of each row by its position, ``"none"`` for a clean row.
        kept: for each method, the rows that it keeps; every other row is dropped.

    Raises:
        ValueError: no rows, or a kept row that is not there.
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
    """The counts as an aligned table, one line a method, chance in the last line.

    Chance is the mean of a blind draw of as many rows, with its standard deviation: a method within
    about two of it has shown nothing.
    """
    first = detections[0]
    columns = [*first.kinds, "clean rows"]
    lines = [["dropped of the planted", *(name.replace("_", " ") for name in columns)]]
    for detection in detections:
        counts = [*detection.kinds.values(), detection.clean]
        lines.append([detection.method, *(f"{count.dropped} of {count.planted}" for count in counts)])
    rows = first.kinds[ALL_KINDS].planted + first.clean.planted
    chances = [_chance(count.planted, first.dropped_share, rows) for count in (*first.kinds.values(), first.clean)]
    lines.append([f"chance ({first.dropped_share:.0%})", *chances])

    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join([line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))]).rstrip() for line in lines]
    rule = "-" * max(map(len, text))
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])


def _count(rows: Sequence[int], kept: Collection[int]) -> Count:
    return Count(dropped=sum(row not in kept for row in rows), planted=len(rows))


def _chance(planted: int, share: float, rows: int) -> str:
    """Mean and standard deviation of the hypergeometric count."""
    spread = math.sqrt(planted * share * (1 - share) * (rows - planted) / max(1, rows - 1))
    return f"{planted * share:.0f} ± {spread:.0f}"
