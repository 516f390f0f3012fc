"""All ranked rows of some scores, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from donod_fast.api.optional import needed
from donod_fast.api.shown import as_table
from donod_fast.system.wording import plural

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class RankedRows:
    """A ranking: what ``Scores.rank`` returns.

    Attributes:
        method: name of the method, with the preferred end if one was given.
        rows: (n,) int64, row numbers, best first.
        values: (n,) float64, the method's figure of merit of these rows; higher is better.
        total: number of all rows.
        left_out: number of rows that have scores but are not ranked, by reason.
        note: a sentence if TOPSIS follows one column; "" if not.
    """

    method: str
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    total: int
    left_out: Mapping[str, int]
    note: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def top(self, count: int = 10) -> list[int]:
        """Numbers of the ``count`` best rows."""
        return [int(row) for row in self.rows[:count]]

    def to_pandas(self) -> Any:
        """A frame with the columns ``row`` and ``value``, best first; its index is the rank, from 0."""
        return needed("pandas").DataFrame({"row": self.rows, "value": self.values})

    def __repr__(self) -> str:
        head = f"{plural(len(self), 'row')} of {self.total:,} ranked by {self.method}"
        out = "".join(f", {rows:,} left out ({reason})" for reason, rows in self.left_out.items())
        best = ", ".join(f"{row} ({value:.6g})" for row, value in self._best())
        more = ", …" if len(self) > _SHOWN else ""
        return "\n  ".join([f"RankedRows: {head}{out}", f"best: {best}{more}", *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        rows = [(place + 1, row, value) for place, (row, value) in enumerate(self._best())]
        return f"<p>{len(self):,} of {self.total:,} rows</p>" + as_table(("rank", "row", self.method), rows)

    def _best(self) -> list[tuple[int, float]]:
        return list(zip(self.rows[:_SHOWN].tolist(), self.values[:_SHOWN].tolist(), strict=True))


__all__ = ["RankedRows"]
