"""One row of scores: what a sample ends as, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from donod_fast.data.types import Status, TokenizedSample

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.scores.columns import Column, Value

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A row of the scores table; numbers are NaN unless ``status`` is ``scored``.

    Attributes:
        row: 0-based position in the input.
        id: the record's own id, else a hash of its content.
        status: ``scored``, or why not (see ``Status``).
        detail: why not, for a reader: file, place, cause.
        tokens: tokens of the row before any truncation.
        scored_tokens: tokens that the score is made of.
        truncated: whether the length limit cut tokens off.
        loss: cross entropy in nats per scored token (or summed, as the settings say).
        entropy: of the predicted distributions in nats, reduced likewise.
        weight_dot_update: ⟨W, U⟩ of the step W′ = W − lr U.
        update_norm: ‖U‖_F.
        don: ‖W‖_F − ‖W′‖_F, high is good.
        nod: ‖W − W′‖_F, low is good.
        carried: values of the record's columns that are carried along.
        signals: values of the further criteria's columns; empty where there are none.
    """

    row: int
    id: str
    status: str
    detail: str = ""
    tokens: int = 0
    scored_tokens: int = 0
    truncated: bool = False
    loss: float = NAN
    entropy: float = NAN
    weight_dot_update: float = NAN
    update_norm: float = NAN
    don: float = NAN
    nod: float = NAN
    carried: tuple[str | None, ...] = ()
    signals: tuple[Value, ...] = ()

    @staticmethod
    def unscored(
        sample: TokenizedSample,
        status: Status | None = None,
        detail: str | None = None,
        signals: tuple[Value, ...] = (),
    ) -> ScoreRow:
        """The row of a sample that has no score, by its own status or a later one."""
        return ScoreRow(
            sample.row,
            sample.id,
            str(status or sample.status),
            sample.detail if detail is None else detail,
            sample.tokens,
            sample.scored_tokens,
            sample.truncated,
            carried=sample.carried,
            signals=signals,
        )


SCORE_COLUMNS = ("loss", "entropy", "weight_dot_update", "update_norm", "don", "nod")


CARRIED = "record."
"""What stands before the name of a carried column in a scores table."""


def schema(carry: Sequence[str] = (), signals: Sequence[Column] = ()) -> pa.Schema:
    """The Arrow schema of a scores table, with columns of the records carried along, and of further criteria."""
    import pyarrow as pa

    from donod_fast.scores.columns import arrow_field

    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("detail", pa.string(), nullable=False),
            pa.field("tokens", pa.int32(), nullable=False),
            pa.field("scored_tokens", pa.int32(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            *(pa.field(name, pa.float64(), nullable=False) for name in SCORE_COLUMNS),
            *(pa.field(CARRIED + name, pa.string()) for name in carry),
            *map(arrow_field, signals),
        ]
    )


def to_table(rows: Sequence[ScoreRow], carry: Sequence[str] = (), signals: Sequence[Column] = ()) -> pa.Table:
    """The rows as an Arrow table, in the order given.

    ``carry`` names what their ``carried`` holds, ``signals`` says what their ``signals`` are.
    """
    import pyarrow as pa

    from donod_fast.scores.columns import arrow_array

    names = [field.name for field in fields(ScoreRow) if field.name not in ("carried", "signals")]
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in names}
    for at, name in enumerate(carry):
        columns[CARRIED + name] = [row.carried[at] for row in rows]
    for at, column in enumerate(signals):
        columns[column.name] = arrow_array(column, [row.signals[at] for row in rows])
    return pa.table(columns, schema=schema(carry, signals))


__all__ = ["CARRIED", "SCORE_COLUMNS", "ScoreRow", "schema", "to_table"]
