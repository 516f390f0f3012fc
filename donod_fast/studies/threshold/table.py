"""The numbers of the threshold study: one line for each selection, its measures with intervals and differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from donod_fast.errors import InputError
from donod_fast.evaluation.passk import pass_at_k
from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.grid import Grid, Measured, Unit
from donod_fast.studies.core.selecting import ALL, Selection, merits
from donod_fast.studies.core.statistics import Estimate, auc, mean_interval
from donod_fast.studies.threshold.intervals import paired, pooled_share

BASE = "base"
RANDOM = "random"
CLEAN = ("", "none", "clean")
"""Values of the column ``corruption`` for clean rows; a missing column or a null also means clean."""

SCORES = ("topsis", "don", "nod", "weighted", "pareto", "loss")
"""Methods whose figure of merit is compared with the planted corruptions."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of a selection: a benchmark, or the held-out data.

    Attributes:
        name: ``humaneval pass@1``, ``family pass@1``, ``held-out loss``.
        share: a share of solved tasks (higher is better), else a loss (lower is better).
        by_seed: the value of each seed.
        over_seeds: their mean with Student's t interval.
        pooled: shares: the mean with an interval over seeds and tasks; losses: as ``over_seeds``.
        versus: the paired difference from ``random`` at the same fraction and from ``all``, if the study has them;
            over seeds and tasks for shares, over seeds for losses.
    """

    name: str
    share: bool
    by_seed: tuple[float, ...]
    over_seeds: Estimate
    pooled: Estimate
    versus: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Line:
    """A selection and the result of training on it; means over seeds.

    Attributes:
        method: method of the selection; ``base`` for the model before training.
        amount: kept amount as text.
        selection: the selection, None for the base.
        rows: number of kept rows.
        kept: kept share of the scored rows.
        tokens: tokens trained on, over all epochs.
        scored_tokens: number of these tokens with a loss.
        saved: tokens saved compared with training on everything.
        share_saved: the same as a share.
        train_seconds: wall time of a training, without loading and saving.
        measure_seconds: wall time of its measures.
        corrupted: share of the kept rows that are planted corruptions, None if nothing is planted.
        kept_of: share of the planted rows of each kind that is kept.
        measures: results of the measures, in the recipe's order.
    """

    method: str
    amount: str
    selection: Selection | None
    rows: float
    kept: float
    tokens: float
    scored_tokens: float
    saved: float
    share_saved: float
    train_seconds: float
    measure_seconds: float
    corrupted: float | None
    kept_of: Mapping[str, float]
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class Separation:
    """The probability that a score ranks a clean row above a planted row of one kind, with its interval."""

    score: str
    kind: str
    rows: int
    auc: Estimate


def lines(
    grid: Grid,
    results: Mapping[Unit | None, Measured],
    *,
    scored_rows: int,
    tokens_of_all: float,
    corruption: Sequence[str] | None = None,
    pass_at: Mapping[str, Sequence[int]] | None = None,
) -> list[Line]:
    """The base first, then each selection in the grid's order.

    Args:
        grid: the grid of the study.
        results: result of every unit of the grid, and under None that of the base.
        scored_rows: number of rows that could be kept.
        tokens_of_all: tokens of training on everything.
        corruption: planted kind of each row of the corpus, one of :data:`CLEAN` for clean rows.
        pass_at: k of pass@k for each benchmark; 1 if it is not named.
    """
    pass_at = pass_at or {}
    tables = {
        chosen: _measures_of([results[grid.of[chosen, seed]] for seed in grid.seeds], pass_at)
        for chosen in grid.selections
    }
    references = {
        chosen: {
            name: other
            for name, other in (
                (RANDOM, Selection(RANDOM, chosen.keep) if chosen.keep is not None else None),
                (ALL, Selection(ALL)),
            )
            if other in tables and other != chosen
        }
        for chosen in grid.selections
    }
    base = results[None]
    made = [_line(None, (), [base], _measures_of([base], pass_at), {}, scored_rows, tokens_of_all, corruption)]
    for chosen in grid.selections:
        units = [grid.of[chosen, seed] for seed in grid.seeds]
        others = {name: tables[other] for name, other in references[chosen].items()}
        finished = [results[unit] for unit in units]
        made.append(_line(chosen, units, finished, tables[chosen], others, scored_rows, tokens_of_all, corruption))
    return made


def separations(
    columns: ScoreColumns,
    corruption: Sequence[str] | None,
    further: Sequence[str] = (),
    *,
    normalise: str = DEFAULT_NORMALISE,
) -> list[Separation]:
    """Separation of each planted kind, and of all kinds together, by each score and by ``further`` methods.

    Empty if nothing is planted.
    """
    if corruption is None:
        return []
    labels = np.array(corruption, dtype=object)[columns.row.numpy()]
    clean = np.isin(labels, CLEAN)
    kinds = list(dict.fromkeys(labels[~clean]))
    found = []
    for score in (*SCORES, *further):
        merit = merits(columns, score, normalise=normalise).numpy()
        there = ~np.isnan(merit)
        for kind in [*kinds, *(["all kinds"] if len(kinds) > 1 else [])]:
            planted = there & (~clean if kind == "all kinds" else labels == kind)
            if planted.any() and (there & clean).any():
                found.append(Separation(score, kind, int(planted.sum()), auc(merit[there & clean], merit[planted])))
    return found


def pass_shares(tasks: Mapping[str, Sequence[int]], k: int) -> dict[str, float]:
    """The unbiased pass@k of each task, from ``[passed, samples]`` (Chen et al., arXiv 2107.03374, eq. 1).

    Raises:
        InputError: a task has fewer than k samples.
    """
    shares = {}
    for task, (passed, samples) in tasks.items():
        if samples < k:
            raise InputError(f"pass@{k} needs {k} samples of task {task}, got {samples}")
        shares[task] = pass_at_k(samples, passed, k)
    return shares


def train_seconds(one: Measured) -> float:
    """Seconds of a training without loading and saving if recorded, else of the whole cell."""
    return float(one.training.get("seconds", one.seconds))


Table = dict[str, tuple[bool, Matrix]]  # measure → whether a share, (seeds, tasks) or (seeds, 1)


def _measures_of(finished: Sequence[Measured], pass_at: Mapping[str, Sequence[int]]) -> Table:
    table: Table = {}
    for name, first in finished[0].measures.items():
        results = [one.measures[name] for one in finished]
        if "tasks" not in first:
            table["held-out loss"] = (False, np.array([[float(result["loss"])] for result in results]))
            continue
        for k in pass_at.get(name, (1,)):
            by_seed = [pass_shares(result["tasks"], k) for result in results]
            order = list(by_seed[0])
            shares = np.array([[shares[task] for task in order] for shares in by_seed])
            table[f"{name} pass@{k}"] = (True, shares)
    return table


def _line(
    chosen: Selection | None,
    units: Sequence[Unit],
    finished: Sequence[Measured],
    table: Table,
    others: Mapping[str, Table],
    scored_rows: int,
    tokens_of_all: float,
    corruption: Sequence[str] | None,
) -> Line:
    rows = [unit.rows for unit in units]
    tokens = _mean(one.training.get("tokens", 0.0) for one in finished)
    saved = tokens_of_all - tokens
    corrupted, kept_of = _planted(rows, corruption)
    count = _mean(map(len, rows)) if rows else 0.0
    return Line(
        method=BASE if chosen is None else chosen.method,
        amount="0 %" if chosen is None else chosen.amount,
        selection=chosen,
        rows=count,
        kept=count / scored_rows,
        tokens=tokens,
        scored_tokens=_mean(one.training.get("scored_tokens", 0.0) for one in finished),
        saved=saved,
        share_saved=saved / tokens_of_all if tokens_of_all else 0.0,
        train_seconds=_mean(train_seconds(one) for one in finished),
        measure_seconds=_mean(one.measure_seconds for one in finished),
        corrupted=corrupted,
        kept_of=kept_of,
        measures=tuple(
            _measure(name, share, matrix, {other: found[name][1] for other, found in others.items()})
            for name, (share, matrix) in table.items()
        ),
    )


def _measure(name: str, share: bool, matrix: Matrix, others: Mapping[str, Matrix]) -> Measure:
    by_seed = tuple(float(value) for value in matrix.mean(axis=1))
    over_seeds = mean_interval(by_seed)
    return Measure(
        name,
        share,
        by_seed,
        over_seeds,
        pooled_share(matrix) if share else over_seeds,
        {other: _difference(matrix, theirs, share) for other, theirs in others.items()},
    )


def _difference(ours: Matrix, theirs: Matrix, share: bool) -> Estimate:
    if np.array_equal(ours, theirs) and not share:
        return Estimate(0.0, 0.0, 0.0)
    return paired(ours, theirs) if share else mean_interval((ours - theirs)[:, 0])


def _planted(rows: Sequence[Sequence[int]], corruption: Sequence[str] | None) -> tuple[float | None, dict[str, float]]:
    if corruption is None or not rows:
        return None, {}
    labels = np.array(corruption, dtype=object)
    clean = np.isin(labels, CLEAN)
    kinds = dict.fromkeys(labels[~clean])
    shares = _mean(float((~clean[list(kept)]).mean()) for kept in rows)
    of = {
        kind: _mean(float((labels[list(kept)] == kind).sum() / (labels == kind).sum()) for kept in rows)
        for kind in kinds
    }
    return shares, of


def _mean(values: Iterator[Any] | Any) -> float:
    numbers = [float(value) for value in values]
    return sum(numbers) / len(numbers)


__all__ = ["BASE", "CLEAN", "Line", "Measure", "Separation", "lines", "pass_shares", "separations", "train_seconds"]
