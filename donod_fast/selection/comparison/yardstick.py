"""Random draws as the yardstick of a comparison: what do selections have that a random draw does not?

Each selection is compared with random draws of as many rows, of as many tokens, and of the same lengths (see
``random_draws.py``): how many rows it has in common with them, and how its tokens and loss differ from theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from donod_fast.selection.random_draws import (
    LEAST_DRAWS,
    LENGTHS,
    ROWS,
    TOKENS,
    LengthDraw,
    Places,
    TokenDraw,
    places_of_rows,
)
from donod_fast.selection.ranking import ScoreColumns

_T = {4: 2.776445}  # the 97.5 % quantile of Student's t, by degrees of freedom: LEAST_DRAWS − 1


class Spread(NamedTuple):
    """The mean over random draws, and the interval in which 95 % of further draws lie."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """From the values of :data:`LEAST_DRAWS` draws (Student's t for one more value)."""
        numbers = np.asarray(values, dtype=np.float64)
        mean = float(numbers.mean())
        half = _T[len(numbers) - 1] * float(numbers.std(ddof=1)) * math.sqrt(1 + 1 / len(numbers))
        return Spread(mean, mean - half, mean + half)


class Drawn(NamedTuple):
    """Random draws of one kind, for one selection.

    Attributes:
        overlap: share of a draw's rows that the selection has too.
        rows: rows of a draw.
        tokens: tokens of a row, on average over a draw; NaN if they are not known.
        loss: loss of a row, on average over a draw.
    """

    overlap: Spread
    rows: Spread
    tokens: Spread
    loss: Spread


@dataclass(frozen=True)
class Yardstick:
    """A selection beside random draws.

    Attributes:
        name: the criterion that selects.
        rows: number of selected rows.
        tokens: tokens of a selected row, on average; NaN if they are not known.
        loss: loss of a selected row, on average.
        draws: random draws by what they have in common with the selection; only ``rows`` if tokens are not known.
        longer: share of the selected rows with more tokens than the median scored row; rows of just that length count
            half. NaN if tokens are not known.
    """

    name: str
    rows: int
    tokens: float
    loss: float
    draws: Mapping[str, Drawn]
    longer: float = math.nan

    def as_dict(self) -> dict[str, Any]:
        """As JSON values; None in place of NaN."""

        def plain(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            "name": self.name,
            "rows": self.rows,
            "tokens": plain(self.tokens),
            "loss": plain(self.loss),
            "longer": plain(self.longer),
            "random": {
                kind: {
                    name: {part: plain(value) for part, value in getattr(drawn, name)._asdict().items()}
                    for name in Drawn._fields
                }
                for kind, drawn in self.draws.items()
            },
        }


def yardsticks(columns: ScoreColumns, selections: Mapping[str, Tensor]) -> tuple[Yardstick, ...]:
    """Compare selections with random draws; selections without a scored row are left out.

    Args:
        columns: the table of scores; its column ``tokens``, if it has one, gives the lengths.
        selections: (n,) bool by position in ``columns``, by the name of the criterion.
    """
    scored = (~(columns.don.isnan() | columns.nod.isnan())).numpy()
    loss = columns.loss.numpy()[scored]
    lengths = _lengths(columns, scored)
    tokens = np.full(len(loss), math.nan) if lengths is None else lengths.astype(np.float64)
    chosen = {name: mask.numpy()[scored] for name, mask in selections.items()}
    chosen = {name: mask for name, mask in chosen.items() if mask.any()}
    found: dict[str, dict[str, list[Places]]] = {name: {} for name in chosen}
    # Draw by draw: what sorts all rows is done once for all selections.
    for seed in range(LEAST_DRAWS):
        token_draw = None if lengths is None else TokenDraw(lengths, seed)
        length_draw = None if lengths is None else LengthDraw(lengths, seed)
        of_rows: dict[int, Places] = {}
        for name, mask in chosen.items():
            count = int(mask.sum())
            if count not in of_rows:
                of_rows[count] = places_of_rows(len(mask), count, seed)
            found[name].setdefault(ROWS, []).append(of_rows[count])
            if token_draw is not None and length_draw is not None and lengths is not None:
                found[name].setdefault(TOKENS, []).append(token_draw.places(int(lengths[mask].sum())))
                found[name].setdefault(LENGTHS, []).append(length_draw.places(mask))
    middle = float(np.median(tokens)) if len(tokens) else math.nan
    return tuple(
        Yardstick(
            name,
            int(mask.sum()),
            _mean(tokens[mask]),
            _mean(loss[mask]),
            {kind: _drawn(draws, mask, tokens, loss) for kind, draws in found[name].items()},
            _longer(tokens[mask], middle),
        )
        for name, mask in chosen.items()
    )


def _drawn(
    draws: Sequence[Places], mask: NDArray[np.bool_], tokens: NDArray[np.float64], loss: NDArray[np.float64]
) -> Drawn:
    return Drawn(
        Spread.of([float(mask[draw].mean()) for draw in draws]),
        Spread.of([len(draw) for draw in draws]),
        Spread.of([_mean(tokens[draw]) for draw in draws]),
        Spread.of([_mean(loss[draw]) for draw in draws]),
    )


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are numbers; NaN if there is none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan


def _longer(values: NDArray[np.float64], middle: float) -> float:
    if math.isnan(middle):
        return math.nan
    return float((values > middle).mean() + (values == middle).mean() / 2)


def _lengths(columns: ScoreColumns, scored: NDArray[np.bool_]) -> Places | None:
    """Tokens of the scored rows; None if they are not known for each of them."""
    if "tokens" not in columns.more:
        return None
    values = columns.more["tokens"].numpy()[scored]
    if not len(values) or not np.isfinite(values).all() or (values < 1).any():
        return None
    return values.astype(np.int64)


__all__ = ["Drawn", "Spread", "Yardstick", "yardsticks"]
