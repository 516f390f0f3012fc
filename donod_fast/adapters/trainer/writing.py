"""Scores that were found while a model was trained → a scores folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from donod_fast.data.masking import Masker
from donod_fast.data.prefetch import Part, prepared
from donod_fast.data.reading import Corpus
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.scores.opening import open_scores
from donod_fast.scores.rows import ScoreRow
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.scoring.sample_scorer import score_row

ROWS = "rows.parquet"
"""The file with the rows of the trainer's data set."""

_UNSEEN = "no step of this epoch trained on the row"


def watched_folder(
    place: Path,
    corpus: Corpus,
    manifest: Mapping[str, Any],
    masker: Masker,
    values: np.ndarray[Any, Any],
    seen: np.ndarray[Any, Any],
) -> None:
    """Write a folder; scores that are in it are dropped. The caller holds its lock.

    Args:
        place: the folder.
        corpus: the file of the rows.
        manifest: as of the beginning of the epoch.
        masker: reads the rows.
        values: (rows, 6) in the order of ``SCORE_COLUMNS``.
        seen: (rows,) whether a row has values; the others get the status ``not_seen``.
    """
    folder = open_scores(place, corpus, {**manifest, "watched": {"rows": int(seen.sum())}}, overwrite=True)
    parts = [Part(number, *folder.part_range(number)) for number in range(folder.parts)]
    with closing(prepared(corpus, masker, parts)) as coming:
        for part, samples in coming:
            folder.write_part(part.number, list(_rows(samples, values, seen)), samples=SampleCounts.of(samples))


def _rows(
    samples: list[TokenizedSample], values: np.ndarray[Any, Any], seen: np.ndarray[Any, Any]
) -> Iterator[ScoreRow]:
    for sample in samples:
        if sample.status is not Status.SCORED:
            yield ScoreRow.unscored(sample)
        elif not seen[sample.row]:
            yield ScoreRow.unscored(sample, Status.NOT_SEEN, _UNSEEN)
        else:
            yield score_row(replace(sample, detail=""), values[sample.row].tolist())


__all__ = ["ROWS", "watched_folder"]
