"""Whether the order of TOPSIS is that of one column: then the other column has no influence, and a user should know."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from donod_fast.selection.rank_correlation import spearman
from donod_fast.selection.ranking import Ranking, ScoreColumns
from donod_fast.system.wording import plural

FOLLOWS = 0.99
"""Rank correlation above which TOPSIS is said to follow a column."""

MOST_ROWS = 1 << 16
"""Rows that are compared; of more rows, every k-th."""

METHODS = ("topsis", "nodon")

FEWEST = 3
"""Fewer rows say nothing about an order."""


@dataclass(frozen=True, slots=True)
class Following:
    """Rank correlation of TOPSIS with its columns. NaN if all rows are equal in one of the two.

    Attributes:
        don: with DON.
        nod: with −NOD.
        rows: rows that were compared.
        ranked: rows that were ranked.
    """

    don: float
    nod: float
    rows: int
    ranked: int

    def as_json(self) -> dict[str, Any]:
        """JSON values; None in place of NaN."""
        return {name: None if value != value else value for name, value in asdict(self).items()}

    def text(self) -> str | None:
        """A sentence if TOPSIS follows one column, else None."""
        followed = [(value, name) for value, name in ((self.don, "DON"), (self.nod, "NOD")) if value > FOLLOWS]
        if not followed:
            return None
        sample = "" if self.rows == self.ranked else f", every {math.ceil(self.ranked / self.rows)}th row compared"
        over = f"over {plural(self.ranked, 'row')}{sample}"
        if len(followed) == 2:
            both = f"{self.don:.4f} and {self.nod:.4f}"
            return f"TOPSIS, DON and NOD give nearly the same order (rank correlations {both} {over})"
        value, name = followed[0]
        other = "NOD" if name == "DON" else "DON"
        return f"TOPSIS follows {name} alone (rank correlation {value:.4f} {over}): {other} has little influence"


def every(rows: int) -> int:
    """Of so many rows, every k-th is compared."""
    return max(1, math.ceil(rows / MOST_ROWS))


def following(
    value: Tensor,  # (n,) figure of merit of topsis, higher is better
    don: Tensor,  # (n,)
    nod: Tensor,  # (n,)
    ranked: int,
) -> Following:
    """Compare some ranked rows, of ``ranked`` in all."""
    return Following(spearman(value, don), spearman(value, -nod), len(value), ranked)


class Sampled:
    """Every k-th of the rows that are ranked a batch at a time.

    Args:
        total: rows of the folder, scored or not.
    """

    def __init__(self, total: int) -> None:
        self._every, self._ranked = every(total), 0
        self._parts: list[Tensor] = []

    def add(self, value: Tensor, don: Tensor, nod: Tensor) -> None:
        """Add ranked rows in the order of their numbers, (n,) each; ``value`` is that of ``topsis``."""
        first = -self._ranked % self._every
        # Stacked after slicing: a slice of the stack would keep all rows in memory.
        self._parts.append(torch.stack([column[first :: self._every] for column in (value, don, nod)]))
        self._ranked += len(value)

    def following(self) -> Following | None:
        """The comparison; None for fewer than three rows."""
        if self._ranked < FEWEST:
            return None
        value, don, nod = torch.cat(self._parts, 1)
        return following(value, don, nod, self._ranked)


def following_of(ranking: Ranking, columns: ScoreColumns) -> Following | None:
    """Compare a ranking in memory; None for another method than TOPSIS, and for fewer than three rows."""
    if ranking.method not in METHODS or len(ranking.order) < FEWEST:
        return None
    by_row, places = columns.row.cpu().sort()
    rows, at = ranking.order.sort()
    some = slice(None, None, every(ranking.total))
    found = places[torch.searchsorted(by_row, rows[some].contiguous())]
    value = ranking.value[at[some]]
    don, nod = columns.don.cpu()[found], columns.nod.cpu()[found]
    return following(value if ranking.method == "topsis" else -value, don, nod, len(rows))


__all__ = ["FEWEST", "FOLLOWS", "METHODS", "MOST_ROWS", "Following", "Sampled", "every", "following", "following_of"]
