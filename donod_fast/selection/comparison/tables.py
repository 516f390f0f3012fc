"""A comparison as text: two triangular tables, cut into blocks of columns that fit the terminal, and random draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

from donod_fast.scoring.settings import DEFAULT_NORMALISE
from donod_fast.selection.column_methods import BY_TOPSIS
from donod_fast.selection.comparison.measures import AS_IS, Comparison, Matrix
from donod_fast.selection.comparison.yardstick import Spread, Yardstick
from donod_fast.selection.random_draws import LEAST_DRAWS, LENGTHS, ROWS, TOKENS
from donod_fast.system.wording import plural

_CELL = 5
KIND_WORDS = {ROWS: "as many rows", TOKENS: "as many tokens", LENGTHS: "the same lengths"}
"""The kinds of random draws in words."""

_MARKS = {"high": "", "low": " (low)", AS_IS: " (?)"}


def render(comparison: Comparison, width: int = 80) -> str:
    """Format the tables with their headings.

    Args:
        comparison: the comparison to show.
        width: width of the terminal in columns.
    """
    share = comparison.keep
    parts = [
        f"{measure_words(comparison)}, {rows_words(comparison)}{_normalised(comparison)}; "
        "signs aligned so that higher is better",
        "((low): low values are better; (?): better end unknown, sign kept; n/a: constant, or too few values)",
        "",
        _triangle(comparison, comparison.correlation, width),
        "",
        f"overlap: share of rows that both select; each selects {amount_words(comparison)}"
        + (f" (by chance {_number(share)})" if isinstance(share, float) else ""),
        "",
        _triangle(comparison, comparison.overlap, width, selecting=True),
    ]
    if comparison.yardsticks:
        parts += ["", *_against_random(comparison.yardsticks)]
    return "\n".join(parts)


def measure_words(comparison: Comparison) -> str:
    """The correlation in words."""
    return "Spearman's rank correlation" if comparison.measure == "spearman" else "Kendall's rank correlation (τ-b)"


def rows_words(comparison: Comparison) -> str:
    """The compared rows in words."""
    if comparison.rows < comparison.total:
        return f"a sample of {comparison.rows:,} of {plural(comparison.total, 'row')}"
    return plural(comparison.rows, "row")


def amount_words(comparison: Comparison) -> str:
    """How much each criterion selects: ``30 %``, ``200 rows``."""
    share = comparison.keep
    return f"{100 * share:g} %" if isinstance(share, float) else plural(share, "row")


def _normalised(comparison: Comparison) -> str:
    """What TOPSIS divided the columns by, where it matters and is not the default."""
    other = comparison.normalise != DEFAULT_NORMALISE and any(name in BY_TOPSIS for name in comparison.names)
    return f"; TOPSIS: columns by {comparison.normalise}" if other else ""


def _against_random(found: Sequence[Yardstick]) -> list[str]:
    """A line for each selection, and one for the random draws of each number of rows."""
    counts = dict.fromkeys(one.rows for one in found)
    names = {one.name: one.name for one in found} | {f"={count}": f"random, {count:,} rows" for count in counts}
    widest = max(map(len, names.values()))
    lines = [
        f"selections beside {LEAST_DRAWS} random draws; in brackets the interval of 95 % of such draws",
        "  ".join([f"{'':<{widest}}", f"{'rows':>7}", f"{'tokens a row':<21}", "loss"]).rstrip(),
    ]
    for one in found:
        lines.append(
            f"{one.name:<{widest}}  {one.rows:>7,}  {plain_words(one.tokens, 1):<21}  {plain_words(one.loss, 3)}"
        )
    for count in counts:
        drawn = next(one.draws[ROWS] for one in found if one.rows == count)
        tokens, loss = spread_words(drawn.tokens, 1), spread_words(drawn.loss, 3)
        lines.append(f"{names[f'={count}']:<{widest}}  {count:>7,}  {tokens:<21}  {loss}")
    kinds = list(found[0].draws)
    lines += [
        "",
        "share of the rows of random draws that the selection has too; draws of",
        "  ".join([f"{'':<{widest}}", *(f"{KIND_WORDS[kind]:<16}" for kind in kinds)]).rstrip(),
    ]
    for one in found:
        cells = (f"{overlap_words(one.draws[kind].overlap):<16}" for kind in kinds)
        lines.append("  ".join([f"{one.name:<{widest}}", *cells]).rstrip())
    return lines


def plain_words(value: float, digits: int) -> str:
    """A number with so many digits; ``n/a`` for NaN."""
    return "n/a" if math.isnan(value) else f"{value:,.{digits}f}"


def spread_words(spread: Spread, digits: int) -> str:
    """A mean with its interval."""
    if math.isnan(spread.mean):
        return "n/a"
    return f"{plain_words(spread.mean, digits)} [{plain_words(spread.low, digits)}, {plain_words(spread.high, digits)}]"


def overlap_words(spread: Spread) -> str:
    """A mean share with its interval, within 0 and 1."""
    low, high = max(0.0, spread.low), min(1.0, spread.high)
    return f"{_number(spread.mean)} [{_number(low)}, {_number(high)}]"


def _triangle(comparison: Comparison, matrix: Matrix, width: int, *, selecting: bool = False) -> str:
    if selecting:
        shown = [at for at, end in enumerate(comparison.ends) if end != AS_IS]
    else:
        shown = [at for at, values in enumerate(comparison.values) if values]
    if len(shown) < 2:
        return f"(fewer than two criteria {'select' if selecting else 'rank'} rows)"
    digits = len(str(len(comparison.names)))
    labels = {
        at: f"{at + 1:>{digits}} {comparison.names[at]}{_MARKS[comparison.ends[at]] if not selecting else ''}"
        for at in shown
    }
    widest = min(max(map(len, labels.values())), max(width // 2, 12))
    at_once = max((width - widest) // _CELL, 1)
    blocks: list[str] = []
    # The last has no rows below it, the first no columns before it.
    for begin in range(0, len(shown) - 1, at_once):
        columns = shown[begin : min(begin + at_once, len(shown) - 1)]
        lines = ["".ljust(widest) + "".join(f"{at + 1:>{_CELL}}" for at in columns)]
        if begin == 0:
            lines.append(labels[shown[0]][:widest])
        for at in shown[begin + 1 :]:
            cells = "".join(f"{_number(matrix[at, other]):>{_CELL}}" for other in columns if other < at)
            lines.append(labels[at][:widest].ljust(widest) + cells)
        blocks.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(blocks)


def _number(value: float) -> str:
    """Two decimals in four characters: ``.83``, ``-.12``, ``1.0``."""
    if math.isnan(value):
        return "n/a"
    text = f"{value:.2f}"
    if text in ("1.00", "-1.00"):
        return text[:-1]
    return text.replace("-0.00", "0.00").replace("0.", ".", 1)


__all__ = [
    "KIND_WORDS",
    "amount_words",
    "measure_words",
    "overlap_words",
    "plain_words",
    "render",
    "rows_words",
    "spread_words",
]
