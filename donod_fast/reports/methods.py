"""The methods of a report: exact ranks of all scored rows, warnings, and totals along the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from donod_fast.errors import InputError
from donod_fast.reports.blocks import Array
from donod_fast.reports.columns import Category
from donod_fast.reports.scored_table import ScoredTable
from donod_fast.selection.column_methods import OWN_METHODS, better_end, find_method, split_end
from donod_fast.selection.keeping import kept_count
from donod_fast.selection.rankers import ranked
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.selection.settings import BY_EMBEDDINGS, KMEANS_IFD, RankOptions
from donod_fast.selection.turn_names import turn_column
from donod_fast.system.escaping import one_line
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

UNRANKED = 0xFFFFFFFF
LONG, SHORT = 2 / 3, 1 / 3
"""Bounds of the share of kept rows that are longer than the median row: from LONG on a method keeps mostly long rows,
up to SHORT mostly short ones."""

FEWEST_KEPT = 20
"""Of fewer kept rows, nothing is said about their lengths."""

_BINS = 200
_DEFAULT = ("topsis", "don", "nod", "loss", "weighted", "pareto", "random")
_TEXTS = {
    "topsis": ("TOPSIS", "closeness to the highest DON and the lowest NOD; the default"),
    "don": ("DON", "high delta of norm first"),
    "nod": ("NOD", "low norm of delta first"),
    "loss": ("loss", "low loss first"),
    "weighted": ("weighted sum", "DON and NOD between 0 and 1, added"),
    "pareto": ("Pareto", "non-dominated sorting for high DON and low NOD"),
    "nodon": ("NODON", "TOPSIS reversed: what DONOD would drop"),
    "random": ("random", "a random order with seed 0, for comparison"),
    "ifd": ("IFD", "high instruction-following difficulty first, without rows at or above 1"),
    "ifd-loss": ("IFD (losses)", "ratio of losses, high first, without rows at or above 1"),
    "kmeans-ifd": ("K-Means + IFD", "the highest IFD of each cluster of questions"),
    "kcenter": ("k-center", "rows that cover the embeddings"),
    "cluster-balanced": ("clusters", "as many rows of each cluster of embeddings"),
}


@dataclass
class Method:
    """A method and its ranks.

    Attributes:
        name: as ``select --method`` takes it.
        ranks: (n,) uint32 place of each scored row, 0 for the best; :data:`UNRANKED`.
        order: (r,) places of the ranked rows among the scored ones, best first.
        fixed: number of rows that a method keeps which only chooses; None for one that ranks.
        warnings: what a reader should know about it.
    """

    name: str
    ranks: Array
    order: Array
    fixed: int | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def ranked(self) -> int:
        """Number of ranked rows."""
        return len(self.order)

    @property
    def arguments(self) -> list[str]:
        """What ``donod-fast select`` needs to rank so."""
        bare, end = split_end(self.name)
        return ["--method", bare] if end is None else ["--method", bare, "--prefer", end]

    @property
    def label(self) -> str:
        """Its name for a reader."""
        return _TEXTS[self.name][0] if self.name in _TEXTS else one_line(self.name)

    def kept(self, keep: float | int) -> int:
        """Number of rows that it keeps."""
        if self.fixed is not None:
            return self.fixed
        return kept_count(min(keep, self.ranked) if isinstance(keep, int) else keep, self.ranked) if self.ranked else 0


def score_columns(table: ScoredTable, places: Array | None = None) -> ScoreColumns:
    """The scored rows, or those at some places, as ranking takes them."""

    def column(values: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values if places is None else values[places]))

    base = ("don", "nod", "loss")
    more = {name: column(values) for name, values in table.numbers.items() if name not in base}
    don, nod, loss = (column(table.numbers[name]) for name in base)
    return ScoreColumns(column(table.row), don, nod, loss, more)


def ranked_methods(
    folder: ScoresFolder, table: ScoredTable, names: Sequence[str], keep: float | int
) -> tuple[list[Method], list[str]]:
    """Rank the scored rows by each method.

    Args:
        folder: the folder, for methods that choose by embeddings.
        table: its scored rows.
        names: the methods; empty for ``topsis`` and every other one that the scores allow.
        keep: what methods keep that only choose.

    Returns:
        The methods, and why others are left out, a sentence each.

    Raises:
        InputError: a method that was named is unknown, or cannot rank these rows.
        StoreError: a part is damaged, or a method by embeddings needs a finished folder.
    """
    columns = score_columns(table)
    found: list[Method] = []
    said: list[str] = []
    for name in names or default_methods(table):
        try:
            found.append(_chosen(folder, table, name, keep) if name in BY_EMBEDDINGS else _ranked(columns, name))
        except InputError as error:
            if names:
                raise
            said.append(f"{one_line(name)} is left out: {one_line(str(error))}")
    return found, said


def default_methods(table: ScoredTable) -> list[str]:
    """``topsis``, and the methods that the columns of a table allow without further arguments."""
    own = [name for name, column in table.columns.items() if column.kind == "number"]
    further = ["ifd"] if "ifd_ppl" in own else []
    further += [name for name in own if name not in OWN_METHODS and better_end(name) is not None]
    return [*_DEFAULT, *further]


def described(method: Method, table: ScoredTable, block: str, totals: dict[str, Any] | None) -> dict[str, Any]:
    """A method as a page reads it."""
    return {
        "name": method.name,
        "label": method.label,
        "text": _text(method.name, table),
        "block": block,
        "ranked": method.ranked,
        "arguments": method.arguments,
        "warnings": method.warnings,
        "fixed": method.fixed,
        "totals": totals,
    }


def length_warning(method: Method, table: ScoredTable, keep: float | int) -> str | None:
    """A sentence where a method keeps mostly long or mostly short rows.

    The rule: of the kept rows, at least two thirds are longer (shorter) in tokens than the median of the ranked rows;
    rows of just that length count half.
    """
    kept = method.kept(keep)
    if kept < FEWEST_KEPT or kept == method.ranked:
        return None
    lengths = table.lengths[method.order]
    middle = float(np.median(lengths))
    chosen = lengths[:kept]
    longer = float((chosen > middle).mean() + (chosen == middle).mean() / 2)
    if SHORT < longer < LONG:
        return None
    word, share = ("long", longer) if longer >= LONG else ("short", 1 - longer)
    amount = f"{100 * keep:g} %" if isinstance(keep, float) else plural(kept, "row")
    return (
        f"{method.label} keeps mostly {word} rows: at {amount}, {100 * share:.0f} % of the kept rows are {word}er than "
        f"the median row ({middle:,.0f} tokens); {chosen.mean():,.0f} tokens a row on average, {lengths.mean():,.0f} "
        "over all rows"
    )


def totals_of(method: Method, table: ScoredTable, groups: dict[str, Category]) -> dict[str, Any]:
    """Exact sums over all ranked rows, in at most 200 bins of ranks, for a file that holds a sample of points.

    ``tokens`` are scored tokens, ``lengths`` all tokens; ``groups`` are rows, by source and by length.
    """
    bins = min(_BINS, max(method.ranked, 1))
    edges = np.linspace(0, method.ranked, bins + 1).round().astype(np.int64)
    at = np.repeat(np.arange(bins), np.diff(edges))
    order = method.order

    def sums(values: Array) -> list[float]:
        found: list[float] = np.bincount(at, weights=values[order], minlength=bins).tolist()
        return found

    named = {**groups, "length": length_groups(table)}
    return {
        "edges": edges.tolist(),
        "tokens": sums(table.numbers["scored_tokens"]),
        "lengths": sums(table.lengths),
        "groups": {name: _by_group(one, order, at, bins) for name, one in named.items()},
    }


def length_groups(table: ScoredTable) -> Category:
    """The rows in ten groups of about equal size by their tokens."""
    lengths = table.lengths
    if not len(lengths):
        return Category(np.zeros(0, np.uint16), [], [], [])
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, 11), method="nearest"))
    codes = np.clip(np.searchsorted(bounds, lengths, side="left") - 1, 0, max(len(bounds) - 2, 0))
    found = [lengths[codes == code] for code in range(int(codes.max()) + 1)]
    names = [f"{one.min():,.0f}–{one.max():,.0f} tokens" if len(one) else "" for one in found]
    return Category(codes.astype(np.uint16), names, list(names), [len(one) for one in found])


def _by_group(found: Category, order: Array, at: Array, bins: int) -> dict[str, Any]:
    codes = found.codes[order]
    counts = [np.bincount(at[codes == code], minlength=bins).tolist() for code in range(len(found.names))]
    return {"names": found.names, "counts": counts}


def _ranked(columns: ScoreColumns, name: str) -> Method:
    ranking = rank(columns, name)
    order = np.searchsorted(columns.row.numpy(), ranking.order.numpy())
    return _with_ranks(name, order, len(columns.row))


def _chosen(folder: ScoresFolder, table: ScoredTable, name: str, keep: float | int) -> Method:
    if name == KMEANS_IFD and not isinstance(keep, float):
        raise InputError(f"{KMEANS_IFD} keeps a share of each cluster; give --keep as a fraction")
    with ranked(folder, RankOptions(method=name)) as ranking:
        rows = np.array([int(row) for row in ranking.keep(keep, None, None, False).rows], np.int64)
    found = _with_ranks(name, np.searchsorted(table.row, rows), len(table))
    found.fixed = len(rows)
    return found


def _with_ranks(name: str, order: Array, size: int) -> Method:
    ranks = np.full(size, UNRANKED, np.uint32)
    ranks[order] = np.arange(len(order), dtype=np.uint32)
    return Method(name, ranks, order)


def _text(name: str, table: ScoredTable) -> str:
    if name in _TEXTS:
        return _TEXTS[name][1]
    if turn_column(name) is not None:
        return "reference sets take turns"
    by = find_method(name, list(table.numbers))
    if by is None:
        return ""
    column = table.columns.get(by.column)
    what = one_line(column.text) if column is not None and column.text else one_line(by.column)
    return f"{what}; {'high' if by.high else 'low'} values first"


__all__ = [
    "LONG",
    "SHORT",
    "UNRANKED",
    "Method",
    "default_methods",
    "described",
    "length_groups",
    "length_warning",
    "ranked_methods",
    "score_columns",
    "totals_of",
]
