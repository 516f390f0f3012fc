"""Random selections that have something in common with a given one: rows, tokens, or lengths.

A method that prefers long rows trains on more tokens than a random draw of as many rows. Comparing it only with that
draw confuses the choice of rows with the amount of training, so three kinds of draws are made:

- **rows**: as many rows. It depends on the number only, so all methods that keep equally many rows share it.
- **tokens**: rows in random order until their tokens come closest to those of the selection.
- **lengths**: the same distribution of lengths. The candidates, sorted by length (ties in random order), are cut into
  strata of equal size at a random offset, and each stratum gives as many rows as the selection has in it. So the counts
  are equal, and each row has a counterpart in the selection that is less than a stratum away by rank.

The rows of the selection are candidates as well: a random draw does not know it. Where a selection is extreme, such as
the longest rows, a draw of the same lengths has to consist of nearly the same rows. :func:`shared` measures that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from donod_fast.errors import InputError

_STRATA, _LEAST = 20, 8
"""Strata of a large pool, and the fewest rows of a stratum: a draw from fewer would repeat the selection."""


def draw_rows(candidates: Sequence[int], count: int, seed: int) -> tuple[int, ...]:
    """Draw ``count`` rows without replacement, each set with equal chance.

    Args:
        candidates: row numbers to draw from, each once.
        count: number of rows, from 1 to the number of candidates.
        seed: number of the draw.

    Returns:
        row numbers in ascending order.

    Raises:
        InputError: there are fewer candidates, or ``count`` is below 1.
    """
    if not 1 <= count <= len(candidates):
        raise InputError(f"a random draw of {count} rows needs 1 to {len(candidates)} rows, the number of candidates")
    return tuple(sorted(Random(f"rows {seed}").sample(sorted(candidates), count)))


def draw_tokens(lengths: Mapping[int, int], total: int, seed: int) -> tuple[int, ...]:
    """Draw rows in random order until their tokens come closest to ``total``.

    The difference is at most half of one row. All rows are drawn if they have no more tokens than ``total``.

    Args:
        lengths: tokens of each candidate, by row number.
        total: tokens to draw, at least 1.
        seed: number of the draw.

    Returns:
        at least one row number, in ascending order.

    Raises:
        InputError: there are no candidates, or ``total`` is below 1.
    """
    if not lengths or total < 1:
        raise InputError(f"a random draw of {total} tokens needs at least 1 token and 1 candidate")
    order = sorted(lengths)
    Random(f"tokens {seed}").shuffle(order)
    drawn: list[int] = []
    left = total
    for row in order:
        if drawn and lengths[row] > 2 * left:
            break
        drawn.append(row)
        left -= lengths[row]
        if left <= 0:
            break
    return tuple(sorted(drawn))


def draw_lengths(
    lengths: Mapping[int, int], selected: Sequence[int], seed: int, *, stratum: int | None = None
) -> tuple[int, ...]:
    """Draw rows whose lengths are distributed as those of a selection.

    Args:
        lengths: tokens of each candidate, by row number; the selection's rows are candidates.
        selected: row numbers of the selection.
        seed: number of the draw.
        stratum: candidates of a stratum; None for a twentieth of them, but at least 8.

    Returns:
        as many row numbers as are selected, in ascending order.

    Raises:
        InputError: nothing is selected, or a selected row is no candidate.
    """
    if not selected:
        raise InputError("a random draw of the same lengths needs a selection; it is empty")
    missing = [row for row in selected if row not in lengths]
    if missing:
        raise InputError(f"row {missing[0]} of the selection has no length; it is not among the candidates")
    size = max(_LEAST, -(-len(lengths) // _STRATA)) if stratum is None else max(1, stratum)
    random = Random(f"lengths {seed}")
    order = sorted(lengths)
    random.shuffle(order)
    order.sort(key=lengths.__getitem__)  # stable: equal lengths stay in random order
    offset = random.randrange(size)
    wanted = set(selected)
    drawn: list[int] = []
    for begin in range(-offset, len(order), size):
        rows = order[max(0, begin) : begin + size]
        drawn += random.sample(rows, sum(row in wanted for row in rows))
    return tuple(sorted(drawn))


def shared(draw: Sequence[int], selected: Sequence[int]) -> float:
    """Share of a draw's rows that are selected too; by chance it is the kept share of the pool."""
    return len(set(draw) & set(selected)) / len(draw)


__all__ = ["draw_lengths", "draw_rows", "draw_tokens", "shared"]
