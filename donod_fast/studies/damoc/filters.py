"""DaMoC's data filters: the rows that candidate models are trained on.

Distribution-aware: :func:`~donod_fast.studies.damoc.graph_cut.graph_cut` over embeddings, and :func:`random_filter`.
Quality-aware: :func:`quality_filter`, by any column of a scores table. Each gives row numbers, best first. The paper
(arXiv 2509.01221) finds that 10–20 % of the rows keep the ranking of models and 5 % do not; its quality measures are
not public; any score column can be used instead.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.studies.damoc.graph_cut import check_count, graph_cut

if TYPE_CHECKING:
    import pyarrow as pa


def random_filter(n: int, count: int, seed: int = 0) -> tuple[int, ...]:
    """Draw ``count`` of ``n`` rows; with the same seed a smaller count gives a prefix of the same sequence.

    Raises:
        InputError: count is not within 1 to n.
    """
    check_count(count, n)
    return tuple(np.random.default_rng(seed).permutation(n)[:count].tolist())


def quality_filter(
    scores: pa.Table | ScoresFolder | str | Path, column: str, count: int, better: str = "high"
) -> tuple[int, ...]:
    """The ``count`` best rows by a column of scores, best first, ties by row number.

    Rows without a number in the column (unscored, null, NaN) are not chosen from.

    Args:
        scores: a table with the columns ``row`` and ``column``, or a scores folder (or its path).
        column: of numbers or flags.
        count: rows to choose.
        better: which end is kept, ``"high"`` or ``"low"``.

    Raises:
        InputError: the column is absent or holds no numbers, or fewer than ``count`` rows have one.
        StoreError: the folder cannot be read, or is unfinished.
    """
    import pyarrow as pa

    if better not in ("high", "low"):
        raise InputError(f"better is 'high' or 'low', not {better!r}")
    where = "the table of scores" if isinstance(scores, pa.Table) else str(getattr(scores, "name", scores))
    if isinstance(scores, (str, Path)):
        scores = ScoresFolder.open(scores)
    table = scores.table() if isinstance(scores, ScoresFolder) else scores
    for name in ("row", column):
        if name not in table.column_names:
            raise InputError(
                f"{where} has no column {name!r}; it has {', '.join(table.column_names)} (`donod-fast score --signals` "
                "adds others)"
            )
    kind = table.schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise InputError(f"column {column!r} of {where} holds {kind}, not numbers; choose another")
    rows, values = table.column("row").to_pylist(), table.column(column).to_pylist()
    pairs = [
        (float(value), row)
        for row, value in zip(rows, values, strict=True)
        if value is not None and not math.isnan(value)
    ]
    if count > len(pairs):
        raise InputError(
            f"cannot choose {count} rows by {column!r}: {len(pairs)} of the {len(rows)} rows of {where} have a value; "
            f"ask for at most {len(pairs)}"
        )
    check_count(count, len(pairs))
    sign = -1.0 if better == "high" else 1.0
    return tuple(row for _, row in sorted((sign * value, row) for value, row in pairs)[:count])


__all__ = ["graph_cut", "quality_filter", "random_filter"]
