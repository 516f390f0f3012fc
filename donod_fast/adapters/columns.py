"""The columns that a host gets for a row.

Hosts write JSON, and some round it to ten decimals. DON and NOD are proportional to the learning rate, so at 2e-5 ten
decimals would leave DON five digits or none. By default a host therefore gets them divided by the learning rate. TOPSIS
is the same for both, because it divides each column by its own size (see ``kernels/topsis.py``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.scores.columns import Column
    from donod_fast.scores.rows import ScoreRow

PREFIX = "donod_"
STATUS = PREFIX + "status"
DETAIL = PREFIX + "detail"
DON = PREFIX + "don_per_lr"
NOD = PREFIX + "nod_per_lr"
LOSS = PREFIX + "loss"
SCORED_TOKENS = PREFIX + "scored_tokens"
TOPSIS = PREFIX + "topsis"

COLUMNS = (STATUS, DETAIL, DON, NOD, LOSS, SCORED_TOKENS)
"""The columns of every row: text, text, number, number, number, integer. A number is None unless the row is scored."""


def host_columns(row: ScoreRow, lr: float, signals: tuple[Column, ...] = ()) -> dict[str, Any]:
    """The columns of one row as plain Python values.

    Args:
        row: the scored row.
        lr: learning rate of the step that scored it.
        signals: the columns of further criteria, in the order of ``row.signals``.

    Returns:
        :data:`COLUMNS`, and one of each further criterion; None where the row has no number.
    """
    found: dict[str, Any] = {
        STATUS: row.status,
        DETAIL: row.detail,
        DON: _number(row.don / lr),
        NOD: _number(row.nod / lr),
        LOSS: _number(row.loss),
        SCORED_TOKENS: row.scored_tokens,
    }
    values = row.signals or (None,) * len(signals)
    for column, value in zip(signals, values, strict=True):
        if column.kind == "vector":
            found[PREFIX + column.name] = None if value is None else [float(one) for one in value]  # type: ignore[union-attr]
        elif column.kind == "flag":
            found[PREFIX + column.name] = None if value is None else bool(value)
        else:
            found[PREFIX + column.name] = None if value is None else _number(float(value))
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


__all__ = ["COLUMNS", "DETAIL", "DON", "LOSS", "NOD", "PREFIX", "SCORED_TOKENS", "STATUS", "TOPSIS", "host_columns"]
