"""One row of scores, the result for a sample, and the table of such rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from donod_fast.data.types import HASH_BYTES, Status, TokenizedSample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from donod_fast.scores.columns import Column, Value

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A row of the scores table; numbers are NaN unless ``status`` is ``scored``.

    Attributes:
        row: 0-based position in the input.
        id: the record's own id, else a hash of its content.
        status: ``scored``, or the reason why there is no score (see ``Status``).
        detail: explanation of a missing score: file, place in the file, cause. Of a scored row: what was rewritten.
        tokens: tokens of the row before truncation. For a very long text it is a lower bound above the limit, and
            ``detail`` says so (see :mod:`donod_fast.data.bounded`).
        scored_tokens: tokens that contribute to the score.
        truncated: whether the length limit cut off tokens.
        loss: cross entropy in nats, mean or sum over scored tokens according to the settings.
        entropy: entropy of the predicted distributions in nats, reduced in the same way.
        weight_dot_update: ⟨W, U⟩ of the step W′ = W − lr U.
        update_norm: ‖U‖_F.
        don: ‖W‖_F − ‖W′‖_F, higher is better.
        nod: ‖W − W′‖_F, lower is better.
        carried: values of the carried columns of the record.
        signals: values of the columns of further criteria; empty if there are none.
        hash: hash of the record as it is stored; empty if it is not known.
        token_losses: (scored_tokens,) cross entropy in nats of each scored token, in order; None unless requested.
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
    hash: bytes = b""
    token_losses: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def unscored(
        sample: TokenizedSample,
        status: Status | None = None,
        detail: str | None = None,
        signals: tuple[Value, ...] = (),
    ) -> ScoreRow:
        """The row of a sample without a score, with its own status or a later one."""
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
            hash=sample.hash,
        )


_NO_COLUMNS = ("carried", "signals", "hash", "token_losses")
"""Fields of a row that have no column of their name."""

SCORE_COLUMNS = ("loss", "entropy", "weight_dot_update", "update_norm", "don", "nod")


CARRIED = "record."
"""Prefix of the names of carried columns in a scores table."""


HASH = "record_hash"
"""The column of a part with the hashes of its records; tables of scores do not have it."""


def schema(carry: Sequence[str] = (), signals: Sequence[Column] = ()) -> pa.Schema:
    """Arrow schema of a scores table with carried columns of the records and columns of further criteria."""
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
    """The rows as an Arrow table, in the given order.

    ``carry`` names the values in ``carried``; ``signals`` describes those in ``signals``.
    """
    import pyarrow as pa

    from donod_fast.scores.columns import arrow_array

    names = [one.name for one in fields(ScoreRow) if one.name not in _NO_COLUMNS]
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in names}
    for at, name in enumerate(carry):
        columns[CARRIED + name] = [row.carried[at] for row in rows]
    for at, column in enumerate(signals):
        columns[column.name] = arrow_array(column, [row.signals[at] for row in rows])
    return pa.table(columns, schema=schema(carry, signals))


def with_hashes(table: pa.Table, hashes: Sequence[bytes]) -> pa.Table:
    """A table of scores with the hashes of the records as its last column; an empty hash becomes null."""
    import pyarrow as pa

    return table.append_column(hash_field(), pa.array([one or None for one in hashes], hash_field().type))


def hash_field() -> pa.Field:
    """Arrow field of the hashes."""
    import pyarrow as pa

    return pa.field(HASH, pa.binary(HASH_BYTES))


__all__ = ["CARRIED", "HASH", "SCORE_COLUMNS", "ScoreRow", "hash_field", "schema", "to_table", "with_hashes"]
