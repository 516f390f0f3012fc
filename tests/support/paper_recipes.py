"""Recipes of ``study paper`` for tests: the demonstration's model and corpus, no network, no benchmark files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo_parts import MODEL, clean_rows

POOL_ROWS, HELD_ROWS = 24, 8


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write a JSON Lines file and return its name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def paper_values(folder: Path, **more: Any) -> dict[str, Any]:
    """A small recipe as plain values: one corpus, one held-out file in its domain and one outside."""
    pool = write_rows(folder / "pool.jsonl", clean_rows(POOL_ROWS))
    inside = write_rows(folder / "inside.jsonl", clean_rows(HELD_ROWS, skip=100))
    outside = write_rows(folder / "outside.jsonl", clean_rows(HELD_ROWS, skip=140))
    values: dict[str, Any] = {
        "name": "small",
        "description": "For tests.",
        "models": [{"name": "demo", "model": str(MODEL)}],
        "pairs": [{"score": "demo", "train": "demo"}],
        "pools": [{"name": "sums", "data": [pool], "domain": "math"}],
        "heldouts": [
            {"name": "sums-test", "data": [inside], "domain": "math"},
            {"name": "words", "data": [outside], "domain": "instructions"},
        ],
        "methods": ["topsis", "nod"],
        "shares": [0.25],
        "random": {"draws": 5, "kinds": ["rows"]},
        "seeds": [0, 1],
        "tuning": {"learning_rate": 1e-3, "step_tokens": 400},
    }
    return {**values, **more}
