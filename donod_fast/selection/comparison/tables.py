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
_MARKS = {"high": "", "low": " (low)", AS_IS: " (?)"}


def render(comparison: Comparison, width: int = 80) -> str:
    """Format the tables with their headings.

    Args:
        comparison: the comparison to show.
        width: width of the terminal in columns.
    """
    share = comparison.keep
    amount = f"{100 * share:g} %" if isinstance(share, float) else plural(share, "row")
    rows = plural(comparison.rows, "row")
    if comparison.rows < comparison.total:
        rows = f"a sample of {comparison.rows:,} of {plural(comparison.total, 'row')}"
    measure = "Spearman's rank correlation" if comparison.measure == "spearman" else "Kendall's rank correlation (τ-b)"
    parts = [
        f"{measure}, {rows}{_normalised(comparison)}; signs aligned so that higher is better",
        "((low): low values are better; (?): better end unknown, sign kept; n/a: constant, or too few values)",
        "",
        _triangle(comparison, comparison.correlation, width),
        "",
        f"overlap: share of rows that both select; each selects {amount}"
        + (f" (by chance {_number(share)})" if isinstance(share, float) else ""),
        "",
        _triangle(comparison, comparison.overlap, width, selecting=True),
    ]
    if comparison.yardsticks:
        parts += ["", *_against_random(comparison.yardsticks)]
    return "\n".join(parts)


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
        lines.append(f"{one.name:<{widest}}  {one.rows:>7,}  {_plain(one.tokens, 1):<21}  {_plain(one.loss, 3)}")
    for count in counts:
        drawn = next(one.draws[ROWS] for one in found if one.rows == count)
        tokens, loss = _spread(drawn.tokens, 1), _spread(drawn.loss, 3)
        lines.append(f"{names[f'={count}']:<{widest}}  {count:>7,}  {tokens:<21}  {loss}")
    kinds = list(found[0].draws)
    heads = {ROWS: "as many rows", TOKENS: "as many tokens", LENGTHS: "the same lengths"}
    lines += [
        "",
        "share of the rows of random draws that the selection has too; draws of",
        "  ".join([f"{'':<{widest}}", *(f"{heads[kind]:<16}" for kind in kinds)]).rstrip(),
    ]
    for one in found:
        cells = (f"{_overlap(one.draws[kind].overlap):<16}" for kind in kinds)
        lines.append("  ".join([f"{one.name:<{widest}}", *cells]).rstrip())
    return lines


def _plain(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:,.{digits}f}"


def _spread(spread: Spread, digits: int) -> str:
    if math.isnan(spread.mean):
        return "n/a"
    return f"{_plain(spread.mean, digits)} [{_plain(spread.low, digits)}, {_plain(spread.high, digits)}]"


def _overlap(spread: Spread) -> str:
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


__all__ = ["render"]
