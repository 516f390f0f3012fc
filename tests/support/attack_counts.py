"""Counts of attacks: how many were tried, how many got through, by kind.

A test that attacks something is marked ``attack`` and takes the fixture ``attacks``. The suite runs a share of each
kind; ``make attack`` runs all of them (``--attacks full``) and writes the counts to a table (``--attack-table FILE``).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

PROPERTY = "attacks"
_SINGLE = re.compile(r": .*?(?=, (?:bubblewrap|namespaces), |$)")
"""What tells one attack of a kind from the others: ``memory: pipes, namespaces, root`` counts as ``memory, namespaces,
root``."""
FIELDS = ("area", "kind", "tried", "got_through", "not_tried")


@dataclass
class Attacks:
    """What one test reports of its attacks.

    Attributes:
        full: whether all attacks run, not the suite's share.
    """

    full: bool
    _properties: list[tuple[str, object]]

    def number(self, share: int, full: int) -> int:
        """The number of trials: ``share`` in the suite, ``full`` in ``make attack``."""
        return full if self.full else share

    def count(self, area: str, kind: str, *, tried: int, got_through: int) -> None:
        """Count attacks of one kind. The test still has to fail if one of them got through.

        Args:
            area: what was attacked: ``"sandbox"``, ``"judge"``, ``"folders"``, ``"inputs"``, ``"secrets"``,
                ``"model folders"``, ``"terminal"``, ``"surroundings"``.
            kind: the kind of attack, in a few words, with whatever distinguishes it (isolation, user).
            tried: number of attacks.
            got_through: number of attacks that did what they must not do.
        """
        self._properties.append((PROPERTY, (area, kind, tried, got_through)))


def table(reports: Iterable[pytest.TestReport]) -> list[tuple[str, str, int, int, str]]:
    """One row a kind, in order of area and kind; a skipped test is a row with the reason why it was not tried."""
    counts: dict[tuple[str, str], tuple[int, int, str]] = {}
    for report in reports:
        if report.skipped and report.when in ("setup", "call") and "attack" in report.keywords:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            counts["skipped", report.nodeid.rpartition("::")[2]] = (0, 0, why.removeprefix("Skipped: "))
        if report.when != "call":
            continue
        for name, value in report.user_properties:
            if name == PROPERTY:
                area, kind, tried, got_through = value  # type: ignore[misc]
                kind = _SINGLE.sub("", kind, count=1)
                before = counts.get((area, kind), (0, 0, ""))
                counts[area, kind] = (before[0] + tried, before[1] + got_through, "")
    return [(*key, *value) for key, value in sorted(counts.items())]


def write_table(path: Path, rows: list[tuple[str, str, int, int, str]]) -> None:
    """Write the rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(rows)
