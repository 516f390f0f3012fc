"""The table of the head phase, results/head_phase.csv: its rows, the columns that identify a case, missing rows.

It does not import the package, so that ``gpu.py`` can use it before the tree with the package exists.
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
    """The columns that identify a case."""
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
    """Rows of a case that the table lacks for a device (in the form that ``recorded_rows`` accepts).

    The floor and our rows count as missing until they have a time; another row may have the reason why it has none.
    """
    found = {row["row"]: row["median_ms"] for row in recorded_rows(TABLE, device=device, **case)}
    return [name for name in ROWS if name not in found or (name in _NEEDED and not found[name])]
