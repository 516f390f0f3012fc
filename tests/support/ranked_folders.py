"""Scores folders with chosen scores, and their ranking in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from donod_fast.criteria.base import Column
from donod_fast.data.reading import open_corpus
from donod_fast.data.shards import ShardPlan, plan_shards
from donod_fast.scores.columns import arrow_array, arrow_field
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.parts import signals_of
from donod_fast.scores.rows import SCORE_COLUMNS, ScoreRow, schema
from donod_fast.scores.signals import SignalEntry
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.system.storage import open_storage

WEIGHT_NORM = 12.5


def folder_of(
    place: Path | str,
    columns: Mapping[str, Any],
    part_rows: Sequence[int],
    carried: Mapping[str, Sequence[str | None]] | None = None,
    inputs: Sequence[tuple[str, int]] = (("rows", -1),),
    signals: Mapping[str, Mapping[str, Any]] | None = None,
) -> ScoresFolder:
    """A finished folder with these columns; what is not given is made up. ``inputs`` are names and rows of the inputs.

    ``signals`` are columns of further criteria: numbers, flags where they are bools, vectors where they have two axes.
    The parts have these numbers of rows; an input begins and ends where a part does.
    """
    total = sum(part_rows)
    carried = carried or {}
    counts = [total if rows < 0 else rows for _, rows in inputs]
    owner = np.repeat(np.arange(len(inputs)), counts)
    segments = np.zeros((len(part_rows), 9), np.int64)
    begins = np.cumsum([0, *part_rows[:-1]])
    segments[:, 0] = np.arange(len(part_rows))
    segments[:, (1, 6, 7)] = -1
    segments[:, 2] = owner[begins]
    segments[:, 3] = begins - np.concatenate([[0], np.cumsum(counts)])[segments[:, 2]]
    segments[:, 4] = part_rows
    entries = [signal_entry(name, found) for name, found in (signals or {}).items()]
    made = [
        {"name": name, "kind": "rows", "digest": name, "rows": rows}
        for (name, _), rows in zip(inputs, counts, strict=True)
    ]
    manifest = {
        "signals": [entry.as_dict() for entry in entries],
        "input": {"rows": total, "fingerprint": "f", "inputs": made},
        "part_rows": max(part_rows),
        "update": {"rule": "adamw", "lr": 2e-5, "storage_dtype": None},
        "model": {"weight_norm": WEIGHT_NORM},
        "carry": list(carried),
    }
    open_storage(place).make()
    folder = ScoresFolder.open_or_create(place, manifest, ShardPlan(segments))
    given = {name: np.asarray(columns.get(name, np.zeros(total)), np.float64) for name in SCORE_COLUMNS}
    table = pa.table(
        {
            "row": np.arange(total),
            "id": [f"r{row}" for row in range(total)],
            "status": ["too_long" if np.isnan(don) else "scored" for don in given["don"]],
            "detail": [""] * total,
            "tokens": np.full(total, 7, np.int32),
            "scored_tokens": np.full(total, 3, np.int32),
            "truncated": np.zeros(total, bool),
            **given,
            **{f"record.{name}": pa.array(values, pa.string()) for name, values in carried.items()},
        },
        schema=schema(list(carried)),
    )
    for entry in entries:
        for column in entry.columns:
            values = list((signals or {})[entry.name][column.name])
            table = table.append_column(arrow_field(column), arrow_array(column, values))
    for part, (begin, rows) in enumerate(zip(begins.tolist(), part_rows, strict=True)):
        folder.write_table(part, table.slice(begin, rows), signals_of(entries))
    return folder


def signal_entry(name: str, columns: Mapping[str, Any]) -> SignalEntry:
    """A criterion of the manifest with these columns."""
    found = []
    for column, values in columns.items():
        array = np.asarray(values)
        kind = "vector" if array.ndim == 2 else "flag" if array.dtype == bool else "number"
        found.append(Column(column, "", kind=kind, size=array.shape[1] if array.ndim == 2 else 1))  # type: ignore[arg-type]
    return SignalEntry(name, {}, name, tuple(found))


def columns_of(folder: ScoresFolder, lr: float | None = None) -> ScoreColumns:
    """What the ranking in memory is given."""
    return ScoreColumns.from_table(folder.table(), weight_norm=WEIGHT_NORM, lr=lr)


def drawn(count: int, seed: int = 0, *, grid: bool = False) -> dict[str, Any]:
    """Skewed scores with NaN rows and negative zeros; on a grid most of them are tied."""
    draw = np.random.default_rng(seed)
    if grid:
        don, nod = draw.integers(-2, 3, count) * 0.25, draw.integers(0, 4, count) * 0.5
    else:
        nod = np.exp(draw.normal(-9, 1.2, count))
        don = nod * draw.normal(0.02, 0.1, count)
    loss = draw.integers(0, 9, count) / 8
    dot, norm = draw.integers(-3, 4, count) / 4, draw.integers(0, 5, count) / 2
    columns = {"don": don, "nod": nod, "loss": loss, "weight_dot_update": dot, "update_norm": norm}
    columns = {name: np.where(draw.random(count) < 0.1, -0.0, column) for name, column in columns.items()}
    unscored = draw.random(count) < 0.1
    return {name: np.where(unscored, np.nan, column) for name, column in columns.items()}


def fake_scores(place: Path, data: Path) -> ScoresFolder:
    """Scores of a corpus without a model: numbers are made up, the last row has none."""
    corpus = open_corpus([str(data)])
    manifest = {
        "input": corpus.describe(),
        "part_rows": 300,
        "model": {"weight_norm": 1.0},
        "update": {"update": "sgd", "lr": 0.1, "storage_dtype": None},
    }
    folder = ScoresFolder.open_or_create(place, manifest, plan_shards(corpus, 300))
    draw = np.random.default_rng(0)
    don, nod = draw.normal(size=corpus.rows), draw.random(corpus.rows) + 1
    for part in range(folder.parts):
        rows = [
            ScoreRow(row, f"r{row}", "scored", "", 9, 3, False, 1.0, 1.0, 1.0, 1.0, float(don[row]), float(nod[row]))
            if row < corpus.rows - 1
            else ScoreRow(row, "last", "empty_response", "data.jsonl, line 1: output is empty")
            for row in range(*folder.part_range(part))
        ]
        folder.write_part(part, rows)
    return folder
