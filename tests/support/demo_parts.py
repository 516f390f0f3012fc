"""The demonstration's model and corpus, small enough to score and train in tests."""

from __future__ import annotations

import json
from typing import Any

from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER

MODEL = MODEL_FOLDER


def clean_rows(count: int, *, skip: int = 0, digits: bool = False) -> list[dict[str, Any]]:
    """Rows that are not corrupted and whose answers are of six words or more; with ``digits``, of two numbers too."""
    rows = [json.loads(line) for line in CORPUS_FILE.read_text(encoding="utf-8").splitlines()]
    good = [
        {name: row[name] for name in ("instruction", "input", "output")}
        for row in rows
        if row["corruption"] == "none" and len(row["output"].split()) >= 6
    ]
    if digits:
        good = [row for row in good if sum(c.isdigit() for c in row["output"]) >= 2]
    assert len(good) >= skip + count
    return good[skip : skip + count]
