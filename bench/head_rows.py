"""The table of the head phase, results/head_phase.csv: its rows, the columns that name a case, what is missing.

Knows nothing of the package, so that ``gpu.py`` can ask before there is a tree to import it from.
"""

from __future__ import annotations

from typing import Any

from record import recorded_rows
from shapes import Lengths, Shape

TABLE = "head_phase"
FLOOR = "logits product (floor)"
UPDATES = ("sgd", "adamw")
# Every row of a case, in the table's order.
ROWS = (
    FLOOR,
    *(f"ours {update}" for update in UPDATES),
    *(f"torch closed form {update}" for update in UPDATES),
    *(f"paper loop {update}" for update in UPDATES),
    *(f"loss only: {name}" for name in ("Liger", "CCE", "torch")),
)
_NEEDED = (FLOOR, "ours sgd", "ours adamw")


def case_columns(shape: Shape, lengths: Lengths, tokens: int, dtype: str) -> dict[str, Any]:
    """The columns that name a case."""
    return {
        "shape": shape.name,
        "vocab": shape.vocab,
        "dim": shape.dim,
        "softcap": "" if shape.softcap is None else shape.softcap,
        "dtype": dtype,
        "lengths": lengths.name,
        "tokens": tokens,
    }


def missing_rows(case: dict[str, Any], device: str) -> list[str]:
    """Rows of a case that are not in the table for a device (as ``recorded_rows`` takes it).

    The floor and ours count as missing until they have a time; another row may say why it has none.
    """
    found = {row["row"]: row["median_ms"] for row in recorded_rows(TABLE, device=device, **case)}
    return [name for name in ROWS if name not in found or (name in _NEEDED and not found[name])]
