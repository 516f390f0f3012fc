"""From measured speeds to the largest honest study that fits a budget. Pure arithmetic, so that it can be tested.

Every study has at least two training seeds and five random draws of as many rows. What the rest of the budget buys, in
this order, each as soon as selections of a good size still fit: draws of as many tokens, of the same lengths, and of
as much compute; then larger selections; then more seeds and draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.errors import InputError
from donod_fast.studies.evidence.plan import COMPUTE, LEAST_DRAWS, LEAST_SEEDS, LENGTHS, ROWS, TOKENS

LEAST_SELECTION = 24
"""Rows of a selection below which a training says nothing about it."""

GOOD_SELECTION = 96
"""Rows of a selection from which further kinds of draws are worth more than a larger selection."""

LEAST_HELDOUT, MOST_HELDOUT = 50, 400
MOST_SEEDS = 6
_MARGIN = 0.9  # of the budget; the machine may be slower later
_KINDS = ((ROWS,), (ROWS, TOKENS), (ROWS, TOKENS, LENGTHS), (ROWS, TOKENS, LENGTHS, COMPUTE))
_COMPUTE_FACTOR = 2.5  # tokens of a draw of as much compute, over those of the selection: a pool is about 3 selections


@dataclass(frozen=True, slots=True)
class Speeds:
    """What a probe measured on this machine; seconds.

    Attributes:
        scoring: a pool row's scores.
        training: a trained row, forward and backward.
        training_start: what each training costs besides.
        measuring: a held-out row's loss.
        measuring_start: what each measure costs besides.
        spent: seconds that loading and probing took already.
    """

    scoring: float
    training: float
    training_start: float
    measuring: float
    measuring_start: float
    spent: float = 0.0


@dataclass(frozen=True, slots=True)
class WhichPlan:
    """Sizes of a study.

    Attributes:
        pool: rows to select from.
        selected: rows of each selection.
        heldout: held-out rows.
        seeds: training seeds of each method.
        draws: random draws of each kind.
        kinds: kinds of draws.
        methods: number of methods.
        trainings: number of trainings.
        seconds: expected wall time, with what the probe took.
    """

    pool: int
    selected: int
    heldout: int
    seeds: int
    draws: int
    kinds: tuple[str, ...]
    methods: int
    trainings: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "kinds": list(self.kinds)}


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a study besides the budget.

    Attributes:
        rows: rows of the data.
        heldout: rows of the held-out data.
        methods: number of methods.
        keep: share of the pool that a selection has.
        epochs: passes over each selection.
        seeds: training seeds, if they were given.
        removal: whether trainings without the selections are wanted.
        jobs: trainings in parallel.
    """

    rows: int
    heldout: int
    methods: int
    keep: float
    epochs: float = 1.0
    seeds: int | None = None
    removal: bool = False
    jobs: int = 1


def plan_study(budget: float, speeds: Speeds, limits: Limits) -> WhichPlan:
    """The largest study that is expected to take at most nine tenths of the budget.

    Args:
        budget: seconds.
        speeds: what the probe measured.
        limits: rows, methods and seeds.

    Raises:
        InputError: there are too few rows, or the budget is too small for the smallest study; the message says how
            much is needed.
    """
    seeds = limits.seeds or LEAST_SEEDS
    least = min(LEAST_SELECTION, _most_selected(limits))
    heldout = min(LEAST_HELDOUT, limits.heldout)
    if least < 2 or heldout < 2:
        raise InputError(
            f"a study needs selections of at least 2 rows and 2 held-out rows; there are {limits.rows} rows to select "
            f"from, of which {limits.keep:g} are kept, and {limits.heldout} held-out rows"
        )
    smallest = _sized(speeds, limits, least, heldout, seeds, LEAST_DRAWS, (ROWS,))
    if smallest.seconds > _MARGIN * budget:
        raise InputError(
            f"the budget of {in_time(budget)} is too small: {seeds} training seeds and {LEAST_DRAWS} random draws for "
            f"{limits.methods} methods are {smallest.trainings} trainings on {least} rows, which need a budget of "
            f"{in_time(smallest.seconds / _MARGIN, up=True)} on this machine; name fewer --methods or give more time"
        )

    def fits(plan: WhichPlan) -> bool:
        return plan.seconds <= _MARGIN * budget

    best = smallest
    good = min(GOOD_SELECTION, _most_selected(limits))
    for kinds in _KINDS:
        wanted = _sized(speeds, limits, good, heldout, seeds, LEAST_DRAWS, kinds)
        if not fits(wanted):
            break
        best = wanted
    best = _grown(speeds, limits, best, fits, "selected", range(best.selected, _most_selected(limits) + 1))
    best = _grown(speeds, limits, best, fits, "heldout", range(heldout, min(MOST_HELDOUT, limits.heldout) + 1))
    if limits.seeds is None and best.selected == _most_selected(limits):
        for more in range(LEAST_SEEDS + 1, MOST_SEEDS + 1):
            draws = LEAST_DRAWS + 2 * (more - LEAST_SEEDS)
            larger = _sized(speeds, limits, best.selected, best.heldout, more, draws, best.kinds)
            if not fits(larger):
                break
            best = larger
    return best


def _grown(speeds: Speeds, limits: Limits, plan: WhichPlan, fits: Any, name: str, sizes: Sequence[int]) -> WhichPlan:
    """The plan with the largest size of one kind that fits; the expected time grows with it."""
    low, high = 0, len(sizes) - 1
    best = plan
    while low <= high:
        middle = (low + high) // 2
        now = {"selected": plan.selected, "heldout": plan.heldout, name: sizes[middle]}
        tried = _sized(speeds, limits, now["selected"], now["heldout"], plan.seeds, plan.draws, plan.kinds)
        if fits(tried):
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


def _most_selected(limits: Limits) -> int:
    return math.floor(limits.keep * limits.rows + 1e-9)


def _sized(
    speeds: Speeds, limits: Limits, selected: int, heldout: int, seeds: int, draws: int, kinds: tuple[str, ...]
) -> WhichPlan:
    pool = min(limits.rows, math.ceil(selected / limits.keep - 1e-9))
    count = seeds * limits.methods
    rows = float(count * selected)
    for kind in kinds:
        drawn = draws if kind == ROWS else draws * limits.methods
        count += drawn
        rows += drawn * selected * (_COMPUTE_FACTOR if kind == COMPUTE else 1.0)
    if limits.removal:
        removed = seeds * limits.methods + draws
        count += removed + seeds
        rows += removed * (pool - selected) + seeds * pool
    measured = speeds.measuring_start + speeds.measuring * heldout
    work = count * (speeds.training_start + measured) + limits.epochs * rows * speeds.training
    seconds = speeds.spent + pool * speeds.scoring + measured + work / limits.jobs
    return WhichPlan(pool, selected, heldout, seeds, draws, kinds, limits.methods, count, seconds)


def in_time(seconds: float, *, up: bool = False) -> str:
    """``45s``, ``12m`` or ``2h10m``, as ``--budget`` takes it; with ``up`` never less than the seconds."""
    turned = math.ceil if up else round
    if seconds < 120:
        return f"{turned(seconds)}s"
    minutes = turned(seconds / 60)
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h" + (f"{minutes % 60}m" if minutes % 60 else "")


__all__ = [
    "LEAST_HELDOUT",
    "LEAST_SELECTION",
    "Limits",
    "Speeds",
    "WhichPlan",
    "in_time",
    "plan_study",
]
