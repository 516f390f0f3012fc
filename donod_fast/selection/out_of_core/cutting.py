"""Find the key that separates the best k rows of a group from the others, by counting instead of sorting.

The keys of a group are counted in bins of equal width between the smallest and the largest. The bin that holds the k-th
largest key is divided into bins again, until it holds a single key. Keys are compared and never changed, and the
function from key to bin is monotonic, so the result is exact. Each round is one pass; its memory grows with the number
of bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from donod_fast.selection.out_of_core.database import Database

_BINS = 1 << 18  # over all groups together
_FEWEST = 4


@dataclass(frozen=True, slots=True)
class Cut:
    """The k-th largest key of a group.

    Attributes:
        key: that key.
        wanted: number of rows with exactly this key that are among the k, at least one.
        tied: number of rows of the group with this key.
    """

    key: float
    wanted: int
    tied: int


def find_cuts(database: Database, source: str, wanted: Mapping[int, int]) -> dict[int, Cut]:
    """Find the cut of each group.

    Args:
        database: the database with the rows.
        source: a query that gives ``grp`` and ``key`` (finite float64).
        wanted: k by group, from one to the number of its rows.
    """
    import pyarrow as pa

    found = database.columns(
        f"SELECT grp, min(key) AS low, max(key) AS high, count(*) AS counted FROM ({source}) GROUP BY grp"
    )
    # By group: smallest and largest key that enclose the cut, number of rows between, number of wanted rows.
    bounds = {
        group: (low, high, counted, wanted[group])
        for group, low, high, counted in zip(*(found[name].tolist() for name in found), strict=True)
        if group in wanted
    }
    cuts: dict[int, Cut] = {}
    while True:
        cuts |= {group: Cut(low, left, tied) for group, (low, high, tied, left) in bounds.items() if low == high}
        bounds = {group: bound for group, bound in bounds.items() if bound[0] < bound[1]}
        if not bounds:
            return cuts
        # The range may exceed the largest float: then halves are compared.
        factors = [1.0 if high - low < float("inf") else 0.5 for low, high, _, _ in bounds.values()]
        content = {"grp": list(bounds), "low": [b[0] for b in bounds.values()], "high": [b[1] for b in bounds.values()]}
        types = pa.schema(
            [("grp", pa.int32()), ("low", pa.float64()), ("high", pa.float64()), ("factor", pa.float64())]
        )
        database.replace("bounds", pa.table({**content, "factor": factors}, schema=types))
        bounds = _narrowed(database, source, bounds)


def _narrowed(
    database: Database, source: str, bounds: Mapping[int, tuple[float, float, int, int]]
) -> dict[int, tuple[float, float, int, int]]:
    bins = max(_BINS // len(bounds), _FEWEST)
    place = "(key * factor - b.low * factor) / (b.high * factor - b.low * factor)"
    counted = database.columns(
        f"SELECT grp, min(key) AS low, max(key) AS high, count(*) AS counted FROM ("
        f"SELECT s.grp, s.key, CAST(floor({place} * {bins}) AS INTEGER) AS bin "
        f"FROM ({source}) s JOIN bounds b ON s.grp = b.grp WHERE s.key >= b.low AND s.key <= b.high"
        ") GROUP BY grp, bin ORDER BY grp, bin DESC"
    )
    groups, totals = counted["grp"], np.cumsum(counted["counted"])
    narrowed = {}
    for begin in np.flatnonzero(np.diff(groups, prepend=-1)).tolist():
        group = int(groups[begin])
        before = int(totals[begin - 1]) if begin else 0
        wanted = bounds[group][3]
        at = int(np.searchsorted(totals, before + wanted))  # the first bin that completes the count
        above = (int(totals[at - 1]) if at else 0) - before
        low, high, rows = (counted[name][at].item() for name in ("low", "high", "counted"))
        narrowed[group] = (low, high, rows, wanted - above)
    return narrowed


__all__ = ["Cut", "find_cuts"]
