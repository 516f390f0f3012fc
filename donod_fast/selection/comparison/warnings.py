"""What a reader of a comparison must not miss: two criteria that are one, and selections of long or of short rows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from donod_fast.selection.comparison.measures import AS_IS, Comparison
from donod_fast.selection.comparison.yardstick import Yardstick
from donod_fast.selection.following import FOLLOWS
from donod_fast.selection.random_draws import ROWS

MOSTLY = 1.5
"""Rows with so many times the tokens of random ones are mostly long; by its inverse, mostly short."""

_MOST = 20


def warnings(comparison: Comparison) -> list[str]:
    """Sentences about criteria with nearly one order, and about lengths, in the order of the criteria."""
    same = list(_same_orders(comparison))
    if len(same) > _MOST:
        same = [*same[:_MOST], f"and {len(same) - _MOST:,} more pairs with a rank correlation above {FOLLOWS:g}"]
    return same + [text for one in comparison.yardsticks if (text := _length(one)) is not None]


def _same_orders(comparison: Comparison) -> Iterator[str]:
    ranking = [at for at, end in enumerate(comparison.ends) if end != AS_IS and comparison.values[at]]
    for place, a in enumerate(ranking):
        for b in ranking[place + 1 :]:
            value = float(comparison.correlation[a, b])
            names = f"{comparison.names[a]} and {comparison.names[b]}"
            if value > FOLLOWS:
                yield (
                    f"{names} give nearly the same order (rank correlation {value:.4f}): choosing between them changes "
                    "little"
                )
            elif value < -FOLLOWS:
                yield f"{names} give nearly opposite orders (rank correlation {value:.4f})"


def _length(one: Yardstick) -> str | None:
    drawn = one.draws[ROWS].tokens
    if not math.isfinite(one.tokens) or not math.isfinite(drawn.mean) or drawn.low <= one.tokens <= drawn.high:
        return None
    times = one.tokens / drawn.mean
    if 1 / MOSTLY < times < MOSTLY:
        return None
    return (
        f"{one.name} keeps mostly {'long' if times > 1 else 'short'} rows: {one.tokens:,.1f} tokens a row, where "
        f"random rows have {drawn.mean:,.1f}"
    )


__all__ = ["MOSTLY", "warnings"]
