"""Sets of equal and nearly equal records, as the page lists them.

Each kind of set has ``kind``, ``label`` and ``text`` in words, ``threshold``, numbers of ``sets`` and ``rows``, and the
largest sets as ``shown``: some of their ``rows``, their ``size``, the ``kept`` row, and the ``similarity`` of each of
the rows to it where that is known (None for the kept row itself), else None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from donod_fast.errors import InputError
from donod_fast.reports.blocks import Array
from donod_fast.reports.methods import Method
from donod_fast.reports.scored_table import ScoredTable
from donod_fast.reports.settings import MINHASH, NONE
from donod_fast.selection.dedupe import THRESHOLDS, duplicate_sets
from donod_fast.selection.dedupe.record_texts import record_texts

if TYPE_CHECKING:
    from donod_fast.data.types import Record
    from donod_fast.scores.folder import ScoresFolder

MOST_ROWS = 50_000
"""Rows that are compared for near-duplicates unless it is asked for."""

SHOWN_SETS, SHOWN_ROWS = 50, 20
"""Sets that the page lists, the largest first, and rows of each."""

NEAR_LABEL = "near-duplicates"
_LABELS = {"exact": "equal records", MINHASH: NEAR_LABEL}


def exact_sets(table: ScoredTable, methods: Sequence[Method]) -> dict[str, Any]:
    """Records that are equal in every column, by the hashes of the parts."""
    order = np.argsort(table.hashes, kind="stable")
    hashes = table.hashes[order]
    begins = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else np.zeros(0, int)
    sizes = np.diff(np.append(begins, len(hashes)))
    many = np.flatnonzero(sizes > 1)
    largest = many[np.argsort(-sizes[many], kind="stable")][:SHOWN_SETS]
    sets = [table.hashed[order[begins[at] : begins[at] + sizes[at]]].tolist() for at in largest]
    without = table.seen - len(hashes)
    text = "records that are equal in every column"
    if without:
        text += f"; {without:,} rows have no hash (an earlier release scored them) and are not compared"
    return _described("exact", text, None, len(many), int(sizes[many].sum()), sets, table, methods)


def near_sets(
    folder: ScoresFolder, records: Iterable[Record], table: ScoredTable, methods: Sequence[Method]
) -> dict[str, Any]:
    """Records whose texts share most of their words, as ``select --dedupe minhash`` finds them by the first method.

    Raises:
        CorpusError: an input cannot be read, or a record has changed since it was scored.
        InputError: MinHash is not installed.
    """
    places = np.full(folder.rows, -1, np.int64)
    order = methods[0].order if methods else np.zeros(0, np.int64)
    places[table.row[order]] = np.arange(len(order))
    others = places < 0  # behind the ranked rows, in their own order
    places[others] = len(order) + np.arange(int(others.sum()))
    rows = np.argsort(places)
    texts = ((int(places[row]), text) for row, text in record_texts(folder, records=records))
    threshold = THRESHOLDS[MINHASH]
    found = [rows[one].tolist() for one in duplicate_sets(texts, MINHASH, threshold)]
    found.sort(key=lambda one: (-len(one), one))
    text = f"records whose texts are alike (MinHash; {threshold:g} of their shingles of five words, or more)"
    return _described(MINHASH, text, threshold, len(found), sum(map(len, found)), found, table, methods)


def why_not_near(wanted: str, rows: int, *, readable: bool) -> str | None:
    """Why near-duplicates are not looked for; None if they are.

    Raises:
        InputError: they are asked for by name, and MinHash is not installed, or the records cannot be read.
    """
    if wanted == NONE:
        return "not looked for (--near-duplicates none)"
    if wanted == MINHASH:
        _refuse_missing_package()
        if not readable:
            raise InputError("--near-duplicates minhash needs the records, which cannot be read; remove it")
        return None
    if not readable:
        return "not looked for: the records cannot be read"
    if rows > MOST_ROWS:
        return f"not looked for in more than {MOST_ROWS:,} rows; add --near-duplicates minhash"
    try:
        _refuse_missing_package()
    except InputError as error:
        return f"not looked for: {error}"
    return None


def _refuse_missing_package() -> None:
    """Raises InputError: MinHash is not installed."""
    duplicate_sets((), MINHASH)


def _described(
    kind: str,
    text: str,
    threshold: float | None,
    sets: int,
    rows: int,
    found: Sequence[Sequence[int]],
    table: ScoredTable,
    methods: Sequence[Method],
) -> dict[str, Any]:
    first = methods[0].ranks if methods else None
    return {
        "kind": kind,
        "label": _LABELS[kind],
        "text": text,
        "threshold": threshold,
        "sets": sets,
        "rows": rows,
        "shown": [
            {
                "rows": list(one[:SHOWN_ROWS]),
                "size": len(one),
                "kept": _best(one, table, first),
                "similarity": None,
            }
            for one in found[:SHOWN_SETS]
        ],
    }


def _best(rows: Sequence[int], table: ScoredTable, ranks: Array | None) -> int | None:
    """The best of some rows by the first method; None if none of them is ranked."""
    if ranks is None or not len(table):
        return None
    numbers = np.asarray(rows)
    places = np.searchsorted(table.row, numbers)
    there = places < len(table)
    there[there] &= table.row[places[there]] == numbers[there]
    if not there.any():
        return None
    at = int(np.argmin(ranks[places[there]]))
    return int(numbers[there][at])


__all__ = ["MOST_ROWS", "NEAR_LABEL", "SHOWN_ROWS", "SHOWN_SETS", "exact_sets", "near_sets", "why_not_near"]
