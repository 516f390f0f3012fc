"""Scores for the tests of the Python interface: chosen columns over a corpus in a file, on a disk and in memory."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from donod_fast.api.scores import Scores
from donod_fast.api.source import Source
from donod_fast.data.reading import open_corpus
from donod_fast.data.shards import plan_shards
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import SCORE_COLUMNS, schema
from donod_fast.system.memory_storage import MemoryStorage

UPDATE = {"update": "adamw", "lr": 2e-5, "storage_dtype": None}


def folder_over(
    place: Path, corpus: Sequence[Path], columns: Mapping[str, Any], carried: Mapping[str, Sequence[str | None]]
) -> ScoresFolder:
    """A finished folder of JSON Lines files with these columns, in parts of 16 rows; what is not given is made up."""
    opened = open_corpus([str(file) for file in corpus])
    rows = opened.rows
    plan = plan_shards(opened, 16)
    manifest = {
        "input": opened.describe(),
        "part_rows": 16,
        "update": UPDATE,
        "model": {"name": "a model", "weight_norm": 12.5},
        "masks": {"template": "tokenizer"},
        "carry": list(carried),
        "signals": [],
    }
    folder = ScoresFolder.open_or_create(place, manifest, plan)
    given = {name: np.asarray(columns[name], np.float64) for name in SCORE_COLUMNS if name in columns}
    given |= {name: np.zeros(rows) for name in SCORE_COLUMNS if name not in given}
    table = pa.table(
        {
            "row": np.arange(rows),
            "id": [f"r{row}" for row in range(rows)],
            "status": ["too_long" if np.isnan(don) else "scored" for don in given["don"]],
            "detail": [
                f"line {row}: has {row} tokens" if np.isnan(don) else "" for row, don in enumerate(given["don"])
            ],
            "tokens": np.arange(rows, dtype=np.int32) % 7,
            "scored_tokens": np.full(rows, 3, np.int32),
            "truncated": np.zeros(rows, bool),
            **given,
            **{f"record.{name}": pa.array(values, pa.string()) for name, values in carried.items()},
        },
        schema=schema(list(carried)),
    )
    for part in range(folder.parts):
        start, stop = folder.part_range(part)
        folder.write_table(part, table.slice(start, stop - start))
    return folder


def written_corpus(path: Path, rows: int, seed: int = 0) -> tuple[Path, list[str | None]]:
    """A file of records of several sources, and the sources."""
    draw = random.Random(seed)
    sources = [draw.choice(["a", "b", "b", "c", None]) for _ in range(rows)]
    lines = [
        f'{{"n": {row}, "source": {"null" if one is None else chr(34) + one + chr(34)}}}\n'
        for row, one in enumerate(sources)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path, sources


def in_memory(folder: ScoresFolder) -> Scores:
    """The scores of a folder in memory, as ``Scorer.score`` returns them."""
    storage = MemoryStorage()
    for pattern in ("*.parquet", "*.json"):
        for name in folder.storage.names(pattern):
            storage.write(name, folder.storage.read(name))
    return Scores(Source(ScoresFolder.open(storage)))
