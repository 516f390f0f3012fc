"""Sets of similar rows that ``select --sets`` wrote, as a report lists them: largest first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from donod_fast.errors import InputError
from donod_fast.reports.duplicates import SHOWN_ROWS, SHOWN_SETS
from donod_fast.reports.scored_table import ScoredTable
from donod_fast.selection.set_files import read_sets
from donod_fast.selection.settings.variety import EMBEDDING, EXACT, FACILITY, KCENTER, KMEANS, MINHASH
from donod_fast.selection.similar_sets import SimilarSet, SimilarSets
from donod_fast.system.escaping import one_line

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

_DUPLICATES = {
    EXACT: ("duplicates by equal texts", "whose conversations are the same text"),
    MINHASH: ("duplicates by MinHash", "whose conversations share most of their runs of five words"),
    EMBEDDING: ("duplicates by embeddings", "whose questions have nearly the same embedding (cosine)"),
}
_SPREADS = {
    KCENTER: "rows represented by k-center",
    KMEANS: "rows represented by k-means",
    FACILITY: "rows represented by facility location",
}


class GivenSets(NamedTuple):
    """The sets of one file.

    Attributes:
        name: of the file.
        sets: by kind and threshold.
    """

    name: str
    sets: list[SimilarSets]


def read_given(folder: ScoresFolder, files: Sequence[str | Path]) -> list[GivenSets]:
    """Read files of sets.

    Raises:
        InputError: a file cannot be read, or is not about the rows of this folder; names file and line.
    """
    return [GivenSets(one_line(Path(file).name), read_sets(folder, Path(file))) for file in files]


def described_sets(given: Sequence[GivenSets], folder: ScoresFolder, table: ScoredTable) -> list[dict[str, Any]]:
    """The sets as the page lists them; see :mod:`donod_fast.reports.duplicates`.

    Raises:
        InputError: a set has a row without a score, which no selection ranks.
    """
    found: list[dict[str, Any]] = []
    for file in given:
        for sets in file.sets:
            _refuse_unscored(file.name, sets, folder, table)
            found.append(_described(file.name, sets))
    return found


def empty_files(given: Sequence[GivenSets]) -> list[dict[str, Any]]:
    """A line about each file without a set."""
    return [{"label": "similar rows", "text": f"{one.name} has no set", "rows": 0} for one in given if not one.sets]


def _refuse_unscored(name: str, sets: SimilarSets, folder: ScoresFolder, table: ScoredTable) -> None:
    rows = np.concatenate([sets.kept, sets.dropped])
    wrong = rows[np.isin(rows, table.unscored)]
    if len(wrong):
        raise InputError(
            f"{name}: row {wrong.min()} is in a set, but has no score in {one_line(folder.name)}, so no selection from "
            "it made this file; write it again with `donod-fast select --sets`"
        )


def _described(name: str, sets: SimilarSets) -> dict[str, Any]:
    kind, threshold = sets.kind, sets.threshold
    if kind in _DUPLICATES:
        label, which = _DUPLICATES[kind]
        at_least = "" if threshold is None else f"; similarity {threshold:g} or more"
        text = f"rows {which}{at_least}: select --dedupe {kind} keeps one of each set"
    else:
        label = _SPREADS[kind]
        text = f"rows that select --diversify {kind} chose, each with the candidates nearest to it (cosine)"
    return {
        "kind": kind,
        "label": label,
        "text": f"{text}; read from {name}",
        "threshold": threshold,
        "sets": len(sets),
        "rows": sets.rows,
        "shown": [_shown(one) for one in _largest(sets)],
    }


def _largest(sets: SimilarSets) -> list[SimilarSet]:
    """The largest sets, equal ones by their kept row. Only these become objects: there may be a million."""
    kept, sizes = np.unique(sets.kept, return_counts=True)
    wanted = kept[np.argsort(-sizes, kind="stable")][:SHOWN_SETS]
    there = np.isin(sets.kept, wanted)
    few = SimilarSets(sets.kind, sets.threshold, sets.kept[there], sets.dropped[there], sets.similarity[there])
    return sorted(few, key=lambda one: (-len(one.dropped), one.kept))


def _shown(one: SimilarSet) -> dict[str, Any]:
    """The kept row, then the others, the most similar first."""
    others = sorted(zip(one.dropped, one.similarity, strict=True), key=lambda pair: (-pair[1], pair[0]))
    others = others[: SHOWN_ROWS - 1]
    return {
        "rows": [one.kept, *[row for row, _ in others]],
        "size": 1 + len(one.dropped),
        "kept": one.kept,
        "similarity": [None, *[round(value, 4) for _, value in others]],
    }


__all__ = ["GivenSets", "described_sets", "empty_files", "read_given"]
