"""A comparison of criteria as a page: ``donod-fast compare --html``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from donod_fast.reports.agreement import ONE
from donod_fast.reports.document import Block, Document, Map, Number, Section, Table, Text, Value, Warned
from donod_fast.reports.methods import FEWEST_KEPT, LONG, SHORT
from donod_fast.selection.comparison.measures import AS_IS, Comparison, Matrix
from donod_fast.selection.comparison.tables import (
    KIND_WORDS,
    amount_words,
    measure_words,
    overlap_words,
    plain_words,
    rows_words,
    spread_words,
)
from donod_fast.selection.comparison.yardstick import Spread, Yardstick
from donod_fast.selection.random_draws import LEAST_DRAWS, ROWS

_BETTER = {"high": "high", "low": "low", AS_IS: "unknown"}
_MARKS = {"high": "", "low": " ↓", AS_IS: " ?"}


_MOST_PAIRS = 20


def comparison_page(comparison: Comparison, name: str) -> Document:
    """A comparison for readers.

    Args:
        comparison: the comparison.
        name: name of the scores folder.
    """
    found = warnings(comparison)
    facts = {
        "Rows": rows_words(comparison),
        "Criteria": f"{len(comparison.names):,}",
        "Each selects": amount_words(comparison),
        "Correlation": measure_words(comparison),
        "TOPSIS divides columns by": comparison.normalise,
    }
    summary = (
        "How far the methods and columns of a scores folder agree: on the order of all rows, and on the rows that each "
        "selects. Signs are aligned so that higher is better."
    )
    sections = [
        Section("Warnings", tuple(map(Warned, found)) or (Text("No two methods are one, and none keeps mostly long or "
                                                               "mostly short rows."),)),
        Section("Rank correlation", _correlations(comparison)),
        Section("Overlap of the selections", _overlaps(comparison)),
        Section("Beside random draws", tuple(_yardsticks(comparison.yardsticks))),
        Section("Criteria", (_criteria(comparison),)),
    ]  # fmt: skip
    return Document(f"Criteria of {name}", summary, facts, tuple(sections))


def warnings(comparison: Comparison) -> list[str]:
    """What a reader must not miss: criteria that are one, and selections of mostly long or short rows.

    The rules are those of a report: a rank correlation above 0.99, and two thirds of the selected rows longer (shorter)
    than the median scored row.
    """
    if not any(comparison.values):
        return ["no row has a score: there is nothing to compare"]
    same = list(_same_orders(comparison))
    if len(same) > _MOST_PAIRS:
        same = [
            *same[:_MOST_PAIRS],
            f"and {len(same) - _MOST_PAIRS:,} more pairs with a rank correlation above {ONE:g}",
        ]
    return same + [text for one in comparison.yardsticks if (text := _length(one)) is not None]


def _same_orders(comparison: Comparison) -> Iterator[str]:
    ranking = [at for at, end in enumerate(comparison.ends) if end != AS_IS and comparison.values[at]]
    for place, a in enumerate(ranking):
        for b in ranking[place + 1 :]:
            value = float(comparison.correlation[a, b])
            names = f"{comparison.names[a]} and {comparison.names[b]}"
            if value > ONE:
                yield f"{names} give nearly the same order (rank correlation {value:.4f}): as selections they are one"
            elif value < -ONE:
                yield f"{names} give nearly opposite orders (rank correlation {value:.4f})"


def _length(one: Yardstick) -> str | None:
    if one.rows < FEWEST_KEPT or not math.isfinite(one.longer) or SHORT < one.longer < LONG:
        return None
    word, share = ("long", one.longer) if one.longer >= LONG else ("short", 1 - one.longer)
    drawn = one.draws[ROWS].tokens.mean
    return (
        f"{one.name} keeps mostly {word} rows: {share:.0%} of them are {word}er than the median row; {one.tokens:,.1f} "
        f"tokens a row, where random rows have {drawn:,.1f}"
    )


def _correlations(comparison: Comparison) -> tuple[Block, ...]:
    shown = [at for at, values in enumerate(comparison.values) if values]
    if len(shown) < 2:
        return (Text("Fewer than two criteria rank rows."),)
    caption = (
        f"{measure_words(comparison)}, {rows_words(comparison)}. ↓: low values are better. ?: the better end is not "
        "known, and the sign is kept. n/a: constant, or too few values."
    )
    return (_map("Rank correlations", comparison, comparison.correlation, shown, caption),)


def _overlaps(comparison: Comparison) -> tuple[Block, ...]:
    shown = [at for at, end in enumerate(comparison.ends) if end != AS_IS and comparison.kept[at]]
    if len(shown) < 2:
        return (Text("Fewer than two criteria select rows."),)
    chance = f" By chance it is {comparison.keep:g}." if isinstance(comparison.keep, float) else ""
    caption = f"Share of rows that both select, where each selects {amount_words(comparison)}.{chance}"
    return (_map("Overlaps of selections", comparison, comparison.overlap, shown, caption),)


def _map(name: str, comparison: Comparison, matrix: Matrix, shown: Sequence[int], caption: str) -> Map:
    labels = tuple(comparison.names[at] + _MARKS[comparison.ends[at]] for at in shown)
    return Map(name, labels, matrix[np.ix_(shown, shown)].tolist(), caption)


def _yardsticks(found: Sequence[Yardstick]) -> Iterator[Block]:
    if not found:
        yield Text("No criterion selects rows.")
        return
    kinds = [kind for kind in KIND_WORDS if kind in found[0].draws]
    rows: list[tuple[Value, ...]] = [
        (
            one.name,
            Number(one.rows, f"{one.rows:,}"),
            Number(one.tokens, plain_words(one.tokens, 1)),
            Number(one.loss, plain_words(one.loss, 3)),
            *(Number(one.draws[kind].overlap.mean, overlap_words(one.draws[kind].overlap)) for kind in kinds),
        )
        for one in found
    ]
    emphasis = frozenset(range(len(rows), len(rows) + len({one.rows for one in found})))
    for count in dict.fromkeys(one.rows for one in found):
        drawn = next(one.draws[ROWS] for one in found if one.rows == count)
        nothing = Number(math.nan, "")
        rows.append(
            (
                f"random, {count:,} rows",
                Number(count, f"{count:,}"),
                _spread(drawn.tokens, 1),
                _spread(drawn.loss, 3),
                *(nothing for _ in kinds),
            )
        )
    heads = ("selection", "rows", "tokens a row", "loss", *(f"share of draws of {KIND_WORDS[kind]}" for kind in kinds))
    caption = (
        f"Each selection beside {LEAST_DRAWS} random draws of as many rows, of as many tokens, and of the same "
        "lengths: the share of a draw's rows that the selection has too. Brackets hold 95 % of such draws."
    )
    yield Table(heads, tuple(rows), caption, emphasis)


def _spread(spread: Spread, digits: int) -> Number:
    return Number(spread.mean, spread_words(spread, digits))


def _criteria(comparison: Comparison) -> Table:
    rows: list[tuple[Value, ...]] = [
        (name, _BETTER[end], Number(values, f"{values:,}"), Number(kept, f"{kept:,}"))
        for name, end, values, kept in zip(
            comparison.names, comparison.ends, comparison.values, comparison.kept, strict=True
        )
    ]
    caption = (
        "A criterion whose better end is not known, or whose values are all equal, selects no rows. Name a method with "
        "its end to select by it, for example `--columns tokens@high,topsis`."
    )
    return Table(("criterion", "better", "rows with a value", "rows selected"), tuple(rows), caption)


__all__ = ["comparison_page", "warnings"]
