"""Which rows of a report have their text in the file: the ends of the methods and the examples first, then random ones.

A file has a limit, and texts get what points and columns leave of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from donod_fast.errors import CorpusError
from donod_fast.reports.blocks import Array, Block, array_block, json_block, json_bytes, size_of
from donod_fast.reports.methods import Method
from donod_fast.reports.sampling import SEED, ends_of
from donod_fast.reports.scored_table import ScoredTable
from donod_fast.reports.texts import Entry, RowTexts
from donod_fast.system.escaping import one_line
from donod_fast.system.wording import plural

CHUNK = 64
"""Rows of a block of texts."""

ENDS = 50
"""Rows from each end of each method, and on either side of its border, whose texts come first."""

_TRIED = 512
"""Rows by which the size of the others is estimated."""

_MARGIN = 0.92
_FEWEST_BYTES = 20_000


@dataclass(frozen=True)
class ChosenTexts:
    """Texts of rows, packed.

    Attributes:
        described: what the page says about them; see the module ``report``.
        blocks: their blocks.
        problem: why the reading ended early; "" if it did not.
    """

    described: dict[str, Any]
    blocks: list[Block]
    problem: str = ""


def no_texts(rows: int, why: str) -> ChosenTexts:
    """A report without texts, and why."""
    described = {
        "rows": 0,
        "of": rows,
        "chunk": CHUNK,
        "chunks": 0,
        "text": "no row has its text here",
        "mask": False,
        "losses": False,
        "why": why,
    }
    return ChosenTexts(described, [array_block("text_rows", "u32", np.zeros(0))])


def choose_texts(
    texts: RowTexts,
    table: ScoredTable,
    methods: Sequence[Method],
    keep: float | int,
    shown: Iterable[int],
    points: Array,
    budget: int,
    why: str,
) -> ChosenTexts:
    """Read texts until the budget is spent.

    Args:
        texts: makes the entries.
        table: the scored rows.
        methods: the methods.
        keep: what they keep at the beginning.
        shown: rows that the page names: examples of statuses, sets of duplicates.
        points: places of the rows that are shown one by one.
        budget: bytes of the page that the texts may take.
        why: why the mask is missing; "" if it is not.

    Raises:
        StoreError: a part is damaged.
    """
    order = _in_order(table, methods, keep, shown, points)
    if budget < _FEWEST_BYTES:
        return no_texts(table.seen, "the columns take all the room that --max-mb allows")
    held = _Held(texts, budget)
    held.read(order[:_TRIED])
    rest = order[_TRIED:]
    if held.used < budget and held.entries and not held.problem:
        fits = int((budget - held.used) * _MARGIN / (held.used / len(held.entries)))
        held.read(rest[:fits])
    return _packed(held, table, budget, why)


class _Held:
    """Entries that have been read, and about how many bytes they take of the page."""

    def __init__(self, texts: RowTexts, budget: int) -> None:
        self._texts, self._budget = texts, budget
        self.entries: dict[int, Entry] = {}
        self.used = 0
        self.problem = ""

    def read(self, rows: Sequence[int]) -> None:
        """Read rows while there is room; of these rows, the first ones have precedence."""
        found: list[Entry] = []
        try:
            found.extend(self._texts.entries(rows))
        except CorpusError as error:
            self.problem = str(error)
        by_row = {entry["row"]: entry for entry in found}
        waiting: list[Entry] = []
        for row in rows:
            if row in by_row and row not in self.entries:
                waiting.append(by_row[row])
            if len(waiting) == CHUNK:
                if not self._take(waiting):
                    return
                waiting = []
        self._take(waiting)

    def drop(self, count: int) -> None:
        """Drop the entries that came last."""
        for row in list(self.entries)[-count:]:
            del self.entries[row]

    def _take(self, entries: list[Entry]) -> bool:
        """Take some entries, or those of them that fit."""
        size = _size(entries)
        while entries and self.used + size > self._budget:
            entries = entries[: len(entries) // 2]
            size = _size(entries)
        self.entries |= {entry["row"]: entry for entry in entries}
        self.used += size
        return bool(entries)


def _size(entries: list[Entry]) -> int:
    return len(zlib.compress(json_bytes(entries), 6)) * 4 // 3 + 128 if entries else 0


def _in_order(
    table: ScoredTable, methods: Sequence[Method], keep: float | int, shown: Iterable[int], points: Array
) -> list[int]:
    """Rows by precedence, each once: the ends of the methods and what the page names, in turns; then all others."""
    random = np.random.default_rng(SEED)
    ends = [table.row[places].tolist() for places in ends_of(methods, keep, ENDS)]
    first = list(shown)
    longest = max(map(len, [first, *ends]), default=0)
    turns = [queue[at] for at in range(longest) for queue in (first, *ends) if at < len(queue)]
    of_points = table.row[points][random.permutation(len(points))].tolist()
    known = dict.fromkeys([*turns, *of_points])
    # Rows without a score last: the page names examples of them, and these have come already.
    return list(known | dict.fromkeys(table.unscored[random.permutation(len(table.unscored))].tolist()))


def _blocks(held: _Held) -> list[Block]:
    """Row numbers, and the entries by rising number, some in each block."""
    rows = sorted(held.entries)
    found = [array_block("text_rows", "u32", np.asarray(rows))]
    for number, at in enumerate(range(0, len(rows), CHUNK)):
        found.append(json_block(f"t{number}", [held.entries[row] for row in rows[at : at + CHUNK]]))
    return found


def _packed(held: _Held, table: ScoredTable, budget: int, why: str) -> ChosenTexts:
    blocks = _blocks(held)
    while held.entries and size_of(blocks) > budget:  # the size of entries was an estimate
        held.drop(max(1, len(held.entries) // 20))
        blocks = _blocks(held)
    rows = sorted(held.entries)
    entries = [held.entries[row] for row in rows]
    scored = len(np.intersect1d(rows, table.row, assume_unique=True))
    if scored == len(table):
        text = f"all {plural(scored, 'scored row')}" if scored else "no scored row"
        text += f" and {plural(len(rows) - scored, 'row')} without a score" if len(rows) > scored else ""
    else:
        text = (
            f"{plural(len(rows), 'row')}: the best, the worst and those at the border of each method, examples of each "
            "status and of duplicates, and random ones"
        )
    described = {
        "rows": len(rows),
        "of": table.seen,
        "chunk": CHUNK,
        "chunks": len(blocks) - 1,
        "text": text,
        "mask": not why,
        "losses": any(entry["losses"] is not None for entry in entries),
        "why": why,
    }
    return ChosenTexts(described, blocks, one_line(held.problem))


__all__ = ["CHUNK", "ChosenTexts", "choose_texts", "no_texts"]
