"""From a table of scores to the rows that a study trains on: one method and one amount.

In addition to the methods of ``selection/ranking.py`` and ``column_methods.py`` there are ``all`` (every scored row),
the methods by embeddings (``kmeans-ifd``, ``kcenter``, ``cluster-balanced``), and ``topsis-range``, ``topsis-vector``,
``topsis-sum``: TOPSIS with this normalisation, so that one study can compare them. Rows are in the order of the input,
so that equal sets are equal tuples and one cell of a study.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from donod_fast.criteria.base import Criterion
from donod_fast.criteria.registry import SignalOptions, parse_signals
from donod_fast.errors import InputError
from donod_fast.kernels.topsis import DEFAULT_NORMALISE, NORMALISATIONS
from donod_fast.selection.column_methods import OWN_METHODS, check_known, signals_of
from donod_fast.selection.coverage import cluster_balanced, k_center
from donod_fast.selection.keeping import keep
from donod_fast.selection.kmeans_ifd import KMEANS_IFD, Questions, choose, read_questions
from donod_fast.selection.ranking import Ranking, ScoreColumns, rank
from donod_fast.selection.settings import BY_EMBEDDINGS, CLUSTER_BALANCED, KCENTER
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

ALL = "all"
BY_THRESHOLD = "don-threshold"
NORMALISED = {f"topsis-{name}": name for name in NORMALISATIONS}
"""Names of TOPSIS with one normalisation."""

STUDY_METHODS = (ALL, *OWN_METHODS, *NORMALISED)
"""Methods that need no further signals; :func:`check_method` accepts others as well."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A method and an amount, given by exactly one of the other three attributes (by none for ``all``).

    Attributes:
        method: a method that :func:`check_method` accepts.
        keep: fraction of the scored rows (for ``kmeans-ifd``, of each cluster's rows with an IFD below 1).
        don_quantile: for ``don-threshold``: keep rows with a DON at or above this quantile.
        don_threshold: for ``don-threshold``: keep rows with a DON at or above this value.

    Raises:
        InputError: the method is unknown, or does not accept this kind of amount.
    """

    method: str
    keep: float | None = None
    don_quantile: float | None = None
    don_threshold: float | None = None

    def __post_init__(self) -> None:
        check_method(self.method)
        for name in ("keep", "don_quantile"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"{name} is a share from 0 to 1, got {share}")
        if self.don_threshold is not None and not math.isfinite(self.don_threshold):
            raise InputError(f"don_threshold must be a finite number, got {self.don_threshold}")
        given = {name for name in ("keep", "don_quantile", "don_threshold") if getattr(self, name) is not None}
        ways: dict[str, list[set[str]]] = {ALL: [set()], BY_THRESHOLD: [{"don_quantile"}, {"don_threshold"}]}
        wanted = ways.get(self.method, [{"keep"}])
        if given not in wanted:
            named = " or ".join(", ".join(way) or "nothing" for way in wanted)
            raise InputError(f"method {self.method} takes {named}, got {', '.join(sorted(given)) or 'nothing'}")

    @property
    def seeded(self) -> bool:
        """Whether the rows depend on the seed."""
        return self.method in ("random", KCENTER, CLUSTER_BALANCED)

    @property
    def amount(self) -> str:
        """The amount as text: ``30 %``, ``DON ≥ q0.7``, ``100 %``."""
        if self.don_quantile is not None:
            return f"DON ≥ q{self.don_quantile:g}"
        if self.don_threshold is not None:
            return f"DON ≥ {self.don_threshold:g}"
        return f"{100 * (1.0 if self.keep is None else self.keep):g} %"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without those that are None."""
        named = {
            "method": self.method,
            "keep": self.keep,
            "don_quantile": self.don_quantile,
            "don_threshold": self.don_threshold,
        }
        return {name: value for name, value in named.items() if value is not None}


def check_method(method: str) -> None:
    """Refuse a method that no study can select by.

    Args:
        method: one of :data:`STUDY_METHODS`, a method by embeddings, or one by columns (``column_methods.py``).

    Raises:
        InputError: the method does not exist.
    """
    if method not in (ALL, *NORMALISED, *BY_EMBEDDINGS):
        check_known(method)


def base_method(method: str) -> str:
    """The method of ``selection/ranking.py`` that a method of a study ranks by."""
    return "topsis" if method in NORMALISED else method


def criteria_for(methods: Iterable[str], references: Sequence[str] = ()) -> tuple[Criterion, ...]:
    """The signals that some methods need.

    Args:
        methods: see :func:`check_method`.
        references: reference sets, for influence.

    Raises:
        InputError: a signal lacks what it needs.
    """
    found: dict[str, None] = {}
    for method in methods:
        if method == KMEANS_IFD:
            found |= {"ifd": None, "embedding": None}
        elif method in BY_EMBEDDINGS:
            found["embedding"] = None
        elif method != ALL:
            found |= dict.fromkeys(signals_of([base_method(method)]))
    return parse_signals(",".join(found), SignalOptions(tuple(references))) if found else ()


def questions_for(folder: ScoresFolder, methods: Collection[str]) -> Questions | None:
    """What methods by embeddings need of a scored folder; None if there is no such method.

    Raises:
        InputError: the folder lacks a column.
        StoreError: it is unfinished or damaged.
    """
    if not any(method in BY_EMBEDDINGS for method in methods):
        return None
    return read_questions(folder, ifd=KMEANS_IFD in methods)


def selected_rows(
    columns: ScoreColumns,
    selection: Selection,
    *,
    seed: int = 0,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    questions: Questions | None = None,
) -> tuple[int, ...]:
    """The row numbers that a selection keeps, in ascending order.

    Args:
        columns: the table of scores.
        selection: method and amount.
        seed: seed of ``random``, ``kcenter`` and ``cluster-balanced``; other methods ignore it.
        weights: weights of DON and NOD, for ``topsis``, ``nodon``, ``weighted`` and ``pareto``.
        normalise: what TOPSIS divides the columns by; see ``ranking.rank``.
        questions: embeddings of the rows' questions, for the methods by embeddings.

    Raises:
        InputError: no row has scores, no row is kept, or a column is missing.
    """
    # A fraction is a float to `keep`; an integer would be a count.
    share = None if selection.keep is None else float(selection.keep)
    if selection.method in BY_EMBEDDINGS:
        if questions is None or share is None:
            raise InputError(
                f"method {selection.method} needs embeddings of the questions, which this study does not make"
            )
        if selection.method == KCENTER:
            return tuple(sorted(k_center(questions.rows, questions.embeddings, share, seed=seed).rows.tolist()))
        if selection.method == CLUSTER_BALANCED:
            balanced = cluster_balanced(questions.rows, questions.embeddings, share, seed=seed)
            return tuple(sorted(balanced.rows.tolist()))
        found = choose(questions.rows, questions.embeddings, questions.ifd, keep=share)
        return tuple(sorted(found.rows.tolist()))
    if selection.method == ALL:
        scored = ~(columns.don.isnan() | columns.nod.isnan())
        rows = columns.row[scored]
        if not len(rows):
            raise InputError(f"nothing to select from: none of the {plural(len(columns.row), 'row')} has scores")
    else:
        ranking = _ranked(columns, selection.method, seed=seed, weights=weights, normalise=normalise)
        rows = keep(ranking, keep=share, don_threshold=selection.don_threshold, don_quantile=selection.don_quantile)
        if not len(rows):
            raise InputError(f"no row has {selection.amount}; the largest DON is {float(ranking.value.max()):.6g}")
    return tuple(sorted(rows.tolist()))


def merits(
    columns: ScoreColumns,
    method: str,
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
) -> Tensor:
    """Each row's figure of merit under a method, (n,) float64 by position in ``columns``, higher is better.

    NaN if the row has no scores. It is used for the AUC between clean and damaged rows.

    Raises:
        InputError: an unknown method.
    """
    ranking = _ranked(columns, method, weights=weights, normalise=normalise)
    value = columns.don.new_full((len(columns.row),), math.nan)
    place = {row: at for at, row in enumerate(columns.row.tolist())}
    value[[place[row] for row in ranking.order.tolist()]] = ranking.value
    return value


def _ranked(
    columns: ScoreColumns, method: str, *, weights: tuple[float, float], normalise: str, seed: int = 0
) -> Ranking:
    chosen = NORMALISED.get(method, normalise)
    return rank(columns, base_method(method), seed=seed, weights=weights, normalise=chosen)


def rows_digest(rows: Sequence[int]) -> str:
    """Hash of a set of rows, independent of their order: 16 hexadecimal digits."""
    text = ",".join(map(str, sorted(rows)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


__all__ = [
    "ALL",
    "BY_THRESHOLD",
    "NORMALISED",
    "STUDY_METHODS",
    "Selection",
    "base_method",
    "check_method",
    "criteria_for",
    "merits",
    "questions_for",
    "rows_digest",
    "selected_rows",
]
