"""The columns of a report: what they mean, their exact histograms, and their values at the points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from donod_fast.criteria.registry import BASE
from donod_fast.reports.blocks import Array, Block, array_block, number_block
from donod_fast.reports.clusters import CLUSTER
from donod_fast.reports.scored_table import ScoredTable, Texts
from donod_fast.scores.columns import Column
from donod_fast.scores.rows import CARRIED
from donod_fast.selection.out_of_core.groups import BY_FILE
from donod_fast.system.escaping import is_hidden, one_line

NO_CATEGORY = 65535
NO_FLAG = 255
OTHERS = "(other)"
MOST_CATEGORIES = 200

_BINS = 60
_WHOLE = 2.0**50
"""Below it, half a unit is a number."""

_WIDE = 50.0
"""An axis is logarithmic where the largest value is so many times the median, and the median so many times over 0."""

_OWN = (
    *BASE,
    Column("tokens", "tokens of the row before truncation"),
    Column("scored_tokens", "tokens that a loss is computed on"),
    Column("update_norm", "‖U‖ of the step W′ = W − lr U"),
    Column("weight_dot_update", "⟨W, U⟩ of that step"),
    Column("truncated", "whether the length limit cut tokens off", kind="flag"),
)
_LABELS = {
    "don": "DON",
    "nod": "NOD",
    "loss": "loss",
    "tokens": "tokens",
    "scored_tokens": "scored tokens",
    "update_norm": "‖U‖",
    "weight_dot_update": "⟨W, U⟩",
}


@dataclass(frozen=True)
class Category:
    """A column of text with few names.

    Attributes:
        codes: (n,) uint16 place of each row's name, :data:`NO_CATEGORY` where it has none.
        names: as a page shows them, the most frequent first; the last may be :data:`OTHERS`.
        values: as they are stored; None for :data:`OTHERS`.
        counts: rows of each.
    """

    codes: Array
    names: list[str]
    values: list[str | None]
    counts: list[int]


@dataclass(frozen=True)
class ReportColumns:
    """The columns of a report.

    Attributes:
        described: by place, as a page reads them; see the module ``report``.
        blocks: values at the points.
        categories: columns of text by name, over all rows.
        places: place of each column by name.
    """

    described: list[dict[str, Any]]
    blocks: list[Block]
    categories: dict[str, Category]
    places: dict[str, int]


def report_columns(table: ScoredTable, points: Array, categories: dict[str, Category]) -> ReportColumns:
    """Describe all columns of a table.

    Args:
        table: the scored rows.
        points: (m,) places of the rows that are shown, rising.
        categories: the columns of text.
    """
    described: list[dict[str, Any]] = []
    blocks: list[Block] = []
    for name, text in _names(table, categories):
        block = f"c{len(described)}"
        where = where_name(name, table)
        label = label_of(name)
        base = {"name": name, "label": label, "block": block, "where": where, "filter": where is not None}
        about = _about(name, table)
        if text is not None:
            meanings = {BY_FILE: "the input file", CLUSTER: "K-Means cluster of the embedding"}
            meaning = meanings.get(name, f"the records' column {label}")
            described.append({**base, "text": meaning, "kind": "category", "better": None, **_of_category(text)})
            blocks.append(array_block(block, "u16", text.codes[points]))
        elif name in table.flags:
            described.append({**base, "text": one_line(about.text), "kind": "flag", "better": None})
            described[-1] |= _of_flag(table.flags[name])
            blocks.append(array_block(block, "u8", table.flags[name][points]))
        else:
            values = table.numbers[name]
            described.append({**base, "text": one_line(about.text), "kind": "number", "better": about.better})
            described[-1] |= histogram(values)
            blocks.append(number_block(block, values[points]))
    return ReportColumns(described, blocks, categories, {one["name"]: at for at, one in enumerate(described)})


def categories_of(table: ScoredTable) -> dict[str, Category]:
    """The columns of text that have a value in some row, by name."""
    found = {name: category(texts) for name, texts in table.texts.items()}
    return {name: one for name, one in found.items() if one.names}


def category(texts: Texts) -> Category:
    """Keep the most frequent names (ties: the first to appear); the others are one."""
    counts = np.bincount(texts.codes, minlength=len(texts.names)) if len(texts.names) else np.zeros(0, np.int64)
    given = np.array([name is not None for name in texts.names], bool)
    order = [int(code) for code in np.argsort(-counts, kind="stable") if given[code] and counts[code]]
    shown, rest = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    if rest:
        shown, rest = order[: MOST_CATEGORIES - 1], order[MOST_CATEGORIES - 1 :]
    places = np.full(max(len(texts.names), 1), NO_CATEGORY, np.uint16)
    places[shown] = np.arange(len(shown))
    places[rest] = len(shown)
    values = [texts.names[code] for code in shown]
    names = [one_line(str(value)) for value in values]
    totals = [int(counts[code]) for code in shown]
    if rest:
        names, values, totals = [*names, OTHERS], [*values, None], [*totals, int(counts[rest].sum())]
    return Category(places[texts.codes], names, values, totals)


def label_of(name: str) -> str:
    """A column's name for a reader."""
    return _LABELS.get(name) or one_line(name.removeprefix(CARRIED))


def where_name(name: str, table: ScoredTable) -> str | None:
    """The name of a column in ``select --where``; None if a command cannot hold it."""
    if name == CLUSTER:
        return None  # it is not stored
    own = name.removeprefix(CARRIED)
    taken = {"row", "id", "status", "detail", *table.numbers, *table.flags}
    wanted = name if own != name and own in taken else own
    return None if "=" in wanted or wanted != wanted.strip() or any(map(is_hidden, wanted)) else wanted


def histogram(values: Array) -> dict[str, Any]:
    """Counts of (n,) numbers between edges, and what an axis needs; NaN and infinite ones are missing."""
    there = values[np.isfinite(values)]
    missing = len(values) - len(there)
    if not len(there):
        return {"low": None, "high": None, "missing": missing, "edges": [0.0, 1.0], "counts": [0], "log": False}
    low, high = float(there.min()), float(there.max())
    log = _is_log(there, low, high)
    edges = _edges(there, low, high, log=log)
    # Each value is in one bin: the last holds its upper edge too.
    places = np.clip(np.searchsorted(edges, there, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(places, minlength=len(edges) - 1)
    return {
        "low": low,
        "high": high,
        "missing": missing,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "log": log,
    }


def _is_log(there: Array, low: float, high: float) -> bool:
    middle = float(np.quantile(there, 0.5, method="lower"))
    return low > 0 and high / middle > _WIDE and middle / low > 2


def _edges(there: Array, low: float, high: float, *, log: bool) -> Array:
    if low == high:
        pad = abs(low) / 2 or 0.5
        return np.array([low - pad, low + pad])
    whole = bool((there == np.floor(there)).all())
    if whole and not log and max(-low, high) < _WHOLE:
        width = int(np.ceil((high - low + 1) / _BINS))
        return low - 0.5 + width * np.arange(int(np.ceil((high - low + 1) / width)) + 1)
    if log:
        edges = np.exp(np.linspace(np.log(low), np.log(high), _BINS + 1))
    else:
        steps = np.linspace(0.0, 1.0, _BINS + 1)
        edges = low * (1 - steps) + high * steps  # the difference may exceed the largest number
    edges[0], edges[-1] = low, high
    distinct: Array = np.unique(edges)
    return distinct


def _of_category(found: Category) -> dict[str, Any]:
    # A value that is shown otherwise than it is stored, and what is no value at all, cannot be typed.
    pairs = zip(found.names, found.values, strict=True)
    unfit = [at for at, (name, value) in enumerate(pairs) if not value or name != value]
    missing = int((found.codes == NO_CATEGORY).sum())
    return {"low": None, "high": None, "missing": missing, "categories": found.names, "counts": found.counts,
            "unfit": unfit, "log": False}  # fmt: skip


def _of_flag(values: Array) -> dict[str, Any]:
    counts = [int((values == one).sum()) for one in (0, 1)]
    return {"low": 0, "high": 1, "missing": len(values) - sum(counts), "categories": ["false", "true"],
            "counts": counts, "log": False}  # fmt: skip


def _about(name: str, table: ScoredTable) -> Column:
    known = {column.name: column for column in _OWN}
    return table.columns.get(name) or known.get(name) or Column(name, "")


def _names(table: ScoredTable, categories: dict[str, Category]) -> list[tuple[str, Category | None]]:
    """The columns in order: the base numbers, the criteria, what only experts read, flags, texts."""
    first = ["don", "nod", "loss", "entropy", "tokens", "scored_tokens"]
    last = ["update_norm", "weight_dot_update"]
    own = [name for name in table.numbers if name not in (*first, *last)]
    return [
        *((name, None) for name in (*first, *own, *last, *table.flags)),
        *((name, found) for name, found in categories.items()),
    ]


__all__ = [
    "MOST_CATEGORIES",
    "NO_CATEGORY",
    "NO_FLAG",
    "OTHERS",
    "Category",
    "ReportColumns",
    "categories_of",
    "category",
    "histogram",
    "label_of",
    "report_columns",
    "where_name",
]
