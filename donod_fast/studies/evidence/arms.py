"""From the scores of a pool to the sets of rows that are trained on: selections, matched random draws, removals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from donod_fast.errors import InputError
from donod_fast.selection.kmeans_ifd import KMEANS_IFD
from donod_fast.selection.random_draws import draw_lengths, draw_rows, draw_tokens, shared
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.selecting import ALL, Selection, selected_rows
from donod_fast.studies.core.settings import FineTuneSettings
from donod_fast.studies.evidence.plan import COMPUTE, LENGTHS, ROWS, EvidencePlan
from donod_fast.studies.evidence.result import KEEP, RANDOM, REMOVE


@dataclass(frozen=True)
class Arm:
    """Rows to train on, and why; trained once for each seed.

    Attributes:
        arm, method, kind, matched, share, draw, overlap: as in an ``EvidenceRow``.
        rows: positions in the pool to train on, in ascending order.
        count: number of selected or removed rows.
        seeds: training seeds.
        factor: how many times the tokens that the matched selection is trained on; None for the plan's budget.
        matched_rows: the rows of that selection.
    """

    arm: str
    method: str
    share: float
    rows: tuple[int, ...] = field(repr=False)
    count: int
    seeds: tuple[int, ...]
    kind: str = ""
    matched: str = ""
    draw: int | None = None
    overlap: float | None = None
    factor: float | None = None
    matched_rows: tuple[int, ...] = field(default=(), repr=False)


def check_methods(methods: Sequence[str]) -> None:
    """Refuse methods that cannot keep a share of a pool, before anything is scored.

    Raises:
        InputError: names the method.
    """
    for method in methods:
        if method == KMEANS_IFD:
            raise InputError(f"this study does not embed questions, which {KMEANS_IFD} needs; the threshold study does")
        if method != ALL:
            Selection(method, keep=0.5)


def make_arms(
    plan: EvidencePlan,
    columns: ScoreColumns,
    lengths: Mapping[int, int],
    scoring_share: Callable[[str, Sequence[int]], float],
) -> list[Arm]:
    """All sets of rows that one pool is trained on.

    Args:
        plan: methods, shares, draws and seeds.
        columns: scores of the candidates: rows that can be scored and trained on.
        lengths: tokens of each candidate.
        scoring_share: for a method and its selection, the cost of its scores over the cost of its training.

    Returns:
        selections in the order of the methods, then the random draws, then the removals.

    Raises:
        InputError: a selection is empty, or a method lacks what it needs.
    """
    seeds = tuple(plan.seeds)
    everything = tuple(sorted(lengths))
    arms = []
    if ALL in plan.methods or plan.removal:
        arms.append(Arm(KEEP, ALL, 1.0, everything, len(everything), seeds))
    for share in plan.shares:
        chosen = {
            method: selected_rows(columns, Selection(method, keep=float(share)))
            for method in plan.methods
            if method != ALL
        }
        arms += [Arm(KEEP, method, share, rows, len(rows), seeds) for method, rows in chosen.items()]
        arms += _draws(plan, share, chosen, lengths, scoring_share)
        if plan.removal:
            arms += _removals(plan, share, chosen, everything)
    return arms


def _draws(
    plan: EvidencePlan,
    share: float,
    chosen: Mapping[str, tuple[int, ...]],
    lengths: Mapping[int, int],
    scoring_share: Callable[[str, Sequence[int]], float],
) -> Iterator[Arm]:
    candidates = sorted(lengths)
    for kind in plan.random.kinds:
        if kind == ROWS:
            for count in dict.fromkeys(map(len, chosen.values())):
                for draw in range(plan.random.draws):
                    rows = draw_rows(candidates, count, draw)
                    yield Arm(KEEP, RANDOM, share, rows, count, draw_seeds(plan, draw), ROWS, draw=draw)
            continue
        for method, selected in chosen.items():
            factor = 1 + scoring_share(method, selected) if kind == COMPUTE else None
            if factor == 1:
                continue  # scores that cost nothing: the same as a draw of as many tokens
            for draw in range(plan.random.draws):
                rows = _matched(kind, lengths, selected, draw, factor or 1.0)
                yield Arm(
                    KEEP,
                    RANDOM,
                    share,
                    rows,
                    len(rows),
                    draw_seeds(plan, draw),
                    kind,
                    method,
                    draw,
                    shared(rows, selected),
                    factor,
                    selected,
                )


def _matched(
    kind: str, lengths: Mapping[int, int], selected: Sequence[int], draw: int, factor: float
) -> tuple[int, ...]:
    if kind == LENGTHS:
        return draw_lengths(lengths, selected, draw)
    total = round(factor * sum(lengths[row] for row in selected))
    return draw_tokens(lengths, total, draw)


def _removals(
    plan: EvidencePlan, share: float, chosen: Mapping[str, tuple[int, ...]], everything: Sequence[int]
) -> Iterator[Arm]:
    def without(rows: Sequence[int]) -> tuple[int, ...]:
        gone = set(rows)
        return tuple(row for row in everything if row not in gone)

    for method, rows in chosen.items():
        yield Arm(REMOVE, method, share, without(rows), len(rows), tuple(plan.seeds))
    for count in dict.fromkeys(map(len, chosen.values())):
        for draw in range(plan.random.draws):
            rest = without(draw_rows(everything, count, draw))
            yield Arm(REMOVE, RANDOM, share, rest, count, draw_seeds(plan, draw), ROWS, draw=draw)


def draw_seeds(plan: EvidencePlan, draw: int) -> tuple[int, ...]:
    """Training seeds of a random draw: the plan's in turn."""
    return tuple(plan.seeds[(draw + at) % len(plan.seeds)] for at in range(plan.random.seeds_each))


def budget(arm: Arm, training: FineTuneSettings, lengths: Mapping[int, int]) -> int | None:
    """Tokens to train an arm on, if they are not those of the plan."""
    if arm.factor is None:
        return None
    own = sum(lengths[row] for row in arm.matched_rows)
    planned = training.epochs * own if training.tokens is None else training.tokens
    return max(1, round(arm.factor * planned))


__all__ = ["Arm", "budget", "check_methods", "draw_seeds", "make_arms"]
