"""Run an evidence study: score each pool, select, draw, train and measure; each piece of work is a cached cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from donod_fast.data.types import Status
from donod_fast.errors import InputError
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.finetune import tokenized
from donod_fast.studies.core.processes import in_processes
from donod_fast.studies.core.scored import ScoringCells
from donod_fast.studies.core.selecting import criteria_for
from donod_fast.studies.core.tables import need
from donod_fast.studies.evidence.arms import Arm, budget, check_methods, make_arms
from donod_fast.studies.evidence.compute import ModelCost, Passed, Passes
from donod_fast.studies.evidence.leaks import Rows, files_of, reference_rows, refuse_leaks
from donod_fast.studies.evidence.plan import EvidencePlan, HeldOut, Pool, Tuning
from donod_fast.studies.evidence.result import (
    ALL,
    KEEP,
    RANDOM,
    UNTRAINED,
    Compute,
    EvidenceRow,
    EvidenceStudy,
)
from donod_fast.studies.evidence.workshop import Measured, Task, Workshop, passed


@dataclass(frozen=True)
class ScoredPool:
    """A pool as one pair of models sees it.

    Attributes:
        columns: scores of the candidates: rows that can be scored, and trained on.
        lengths: tokens of each candidate, for the model that is trained.
        scored_tokens: tokens of each candidate with a loss.
        costs: cost of the scores that each method needs.
        model: cost of the model that is trained.
    """

    columns: ScoreColumns
    lengths: Mapping[int, int]
    scored_tokens: Mapping[int, int]
    costs: Mapping[str, Compute]
    model: ModelCost

    def training_flops(self, rows: Sequence[int], tuning: Tuning) -> float:
        """Operations of training a selection on the tuning's budget."""
        own = Passed(sum(self.lengths[row] for row in rows), sum(self.scored_tokens[row] for row in rows))
        tokens = tuning.training.tokens
        epochs = tuning.training.epochs if tokens is None else tokens / own.tokens
        return epochs * self.model.training(own, adapters=tuning.adapters is not None)


def run_evidence(
    out: Path,
    plan: EvidencePlan,
    *,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
    jobs: int = 1,
) -> EvidenceStudy:
    """Run the study, or resume it. It writes cells only; ``report.py`` writes its report.

    Args:
        out: the study's folder.
        plan: what to run.
        cells: folder whose cells studies share; None for ``out``.
        on_cell: called with each finished cell.
        jobs: trainings in parallel, each in a process of one thread; the plan can be pickled then.

    Raises:
        InputError: a part of the plan cannot be run; held-out rows are also in a pool or reference set.
        CorpusError, ModelError, StoreError, WorkerError: as their names say.
    """
    check_methods(plan.methods)
    need("scipy", "study")
    need("trl", "train")
    if any(tuning.adapters is not None for tuning in plan.tunings):
        need("peft", "train")
    root = out if cells is None else cells
    store = CellStore(root, on_cell)
    shop = Workshop(plan, root)
    if not plan.allow_overlap:
        pools = [Rows(f"the training data {_place(one)}", shop.rows(one), one.skip) for one in plan.pools]
        heldouts = [Rows(f"the held-out data {_place(one)}", shop.rows(one), one.skip) for one in plan.heldouts]
        refuse_leaks(heldouts, [*pools, *reference_rows(plan.references)])
    scored = {
        (pair, pool): scored_pool(store, shop, pair, pool)
        for pair, pool in itertools.product(range(len(plan.pairs)), range(len(plan.pools)))
    }
    planned = [one for key, found in scored.items() for one in _planned(plan, *key, found)]
    results = _measured(shop, [task for task, *_ in planned], on_cell, jobs)
    rows = [_row(plan, scored[task.pair, task.pool], task, arm, results[task]) for task, arm in planned]
    _refuse_other_rows(rows)
    selections = {
        (row.pair, row.pool, row.method, row.share): arm.rows
        for (_, arm), row in zip(planned, rows, strict=True)
        if arm is not None and arm.arm == KEEP and arm.method != RANDOM
    }
    domains = {(pool.name, one.name): one.domain_of(pool.name) for pool in plan.pools for one in plan.heldouts}
    return EvidenceStudy(_recorded(plan, shop, scored), tuple(rows), domains, selections)


def scored_pool(store: CellStore, shop: Workshop, pair: int, place: int) -> ScoredPool:
    """Score a pool by the update and all criteria that the plan's methods need.

    Raises:
        InputError: no row can be both scored and trained on.
    """
    plan, pool = shop.plan, shop.plan.pools[place]
    loaded = shop.scoring_model(pair)
    records = shop.rows(pool)
    criteria = criteria_for([method for method in plan.methods if method != ALL], plan.references)
    scoring = ScoringCells(store, loaded, pool.masks, criteria)
    scores = scoring.score(records, plan.update)
    trained, seen = shop.samples(pair, pool), tokenized(loaded, records, pool.masks)
    columns = scores.columns()
    usable = columns.don.isfinite() & columns.nod.isfinite()
    rows = [row for row, sample in enumerate(trained) if usable[row] and sample.status is Status.SCORED]
    if not rows:
        raise InputError(f"no row of {_place(pool)} can be both scored and trained on; `donod-fast score` says why")
    at = torch.tensor(rows)
    counts = {
        "tokens": torch.tensor([float(len(sample.input_ids)) for sample in seen], dtype=torch.float64),
        "scored_tokens": torch.tensor([float(sample.scored_tokens) for sample in seen], dtype=torch.float64),
    }
    more = {name: column[at] for name, column in {**columns.more, **counts}.items()}
    picked = ScoreColumns(at, columns.don[at], columns.nod[at], columns.loss[at], more)
    model, pool_tokens = ModelCost.of(loaded.model), passed(seen)
    references = Passed(0, 0)
    if any(Passes.of(method).reference for method in plan.methods if method != ALL):
        for reference in reference_rows(plan.references):
            references += passed(tokenized(loaded, reference.rows, pool.masks))
    costs = {
        method: Passes.of(method).cost(
            model, pool_tokens, references, update=plan.update.update, seconds=scores.seconds
        )
        for method in plan.methods
        if method != ALL
    }
    return ScoredPool(
        picked,
        {row: len(trained[row].input_ids) for row in rows},
        {row: trained[row].scored_tokens for row in rows},
        costs,
        ModelCost.of(shop.trained_model(pair).model),
    )


def _planned(plan: EvidencePlan, pair: int, pool: int, scored: ScoredPool) -> list[tuple[Task, Arm | None]]:
    """The trainings of a pair and a pool, the first seed of each arm first, after the untrained model."""
    found: list[tuple[Task, Arm | None]] = [(Task(pair, pool, 0, (), 0), None)]
    for place, tuning in enumerate(plan.tunings):

        def share(method: str, rows: Sequence[int], tuning: Tuning = tuning) -> float:
            return scored.costs[method].flops / scored.training_flops(rows, tuning)

        arms = make_arms(plan, scored.columns, scored.lengths, share)
        for turn in range(max(len(arm.seeds) for arm in arms)):
            for arm in arms:
                if turn < len(arm.seeds):
                    tokens = budget(arm, tuning.training, scored.lengths)
                    found.append((Task(pair, pool, place, arm.rows, arm.seeds[turn], tokens), arm))
    return found


def _measured(
    shop: Workshop, tasks: Sequence[Task], on_cell: Callable[[Cell], None] | None, jobs: int
) -> dict[Task, Measured]:
    distinct = list(dict.fromkeys(tasks))
    make = (lambda: shop) if jobs <= 1 else partial(Workshop, shop.plan, shop.cells)
    found = {}
    for task, cell in in_processes(make, _one, distinct, jobs):
        if on_cell is not None:
            on_cell(cell)
        found[task] = Measured.of(cell)
    return found


def _one(shop: Workshop, task: Task) -> tuple[Task, Cell]:
    return task, shop.measured(task)


def _row(plan: EvidencePlan, scored: ScoredPool, task: Task, arm: Arm | None, found: Measured) -> EvidenceRow:
    pair, pool, tuning = plan.pairs[task.pair], plan.pools[task.pool], plan.tunings[task.tuning]
    done = Passed(found.tokens, found.scored_tokens)
    adapters = tuning.adapters is not None
    cost = Compute(found.tokens, scored.model.training(done, adapters=adapters), found.seconds)
    what: dict[str, Any]
    if arm is None:
        what = {"arm": KEEP, "method": UNTRAINED, "kind": "", "matched": "", "share": 0.0, "draw": None}
        what |= {"seed": None, "rows": 0, "overlap": None}
    else:
        what = {name: getattr(arm, name) for name in ("arm", "method", "kind", "matched", "share", "draw", "overlap")}
        what |= {"seed": task.seed, "rows": arm.count}
    return EvidenceRow(
        pair=pair.label,
        pool=pool.name,
        tuning="" if arm is None else tuning.label,
        tokens=found.tokens,
        scoring=scored.costs.get(what["method"], Compute()),
        training=cost,
        losses=found.losses,
        benchmarks=found.benchmarks,
        **what,
    )


def _refuse_other_rows(rows: Sequence[EvidenceRow]) -> None:
    """Refuse losses that are missing for some held-out rows, which would compare different rows."""
    base = {(row.pair, name): losses.tokens for row in rows if row.seed is None for name, losses in row.losses.items()}
    for row in rows:
        for name, losses in row.losses.items():
            if losses.tokens != base[row.pair, name]:
                raise InputError(
                    f"after training on {row.method} (seed {row.seed}) some rows of the held-out data {name} have no "
                    "finite loss; lower the learning rate"
                )


def _recorded(plan: EvidencePlan, shop: Workshop, scored: Mapping[tuple[int, int], ScoredPool]) -> dict[str, Any]:
    """Plain values of everything that was run."""

    def model(loaded: Any) -> dict[str, Any]:
        dtype = str(loaded.dtype).removeprefix("torch.")
        return {"model": loaded.name, "fingerprint": loaded.fingerprint, "dtype": dtype, "device": str(loaded.device)}

    def data(one: Pool | HeldOut) -> dict[str, Any]:
        return {"data": _place(one), "skip": one.skip, "rows": len(shop.rows(one)), "masks": one.masks.as_key()}

    return {
        "pairs": {
            pair.label: {"scores": model(shop.scoring_model(at)), "trained": model(shop.trained_model(at))}
            for at, pair in enumerate(plan.pairs)
        },
        "pools": {
            pool.name: {**data(pool), "candidates": len(scored[0, at].lengths)} for at, pool in enumerate(plan.pools)
        },
        "heldouts": {one.name: data(one) for one in plan.heldouts},
        "methods": list(plan.methods),
        "shares": list(plan.shares),
        "random": {"draws": plan.random.draws, "kinds": list(plan.random.kinds), "seeds_each": plan.random.seeds_each},
        "seeds": list(plan.seeds),
        "tunings": {
            one.label: {
                "method": one.method,
                **one.training.as_dict(),
                "lora": None if one.adapters is None else one.adapters.as_dict(),
            }
            for one in plan.tunings
        },
        "removal": plan.removal,
        "benchmarks": sorted(plan.benchmarks),
        "references": list(plan.references),
        "update": plan.update.as_dict(),
        "allow_overlap": plan.allow_overlap,
    }


def _place(one: Pool | HeldOut) -> str:
    """Files of a set, or its name where the rows came from Python."""
    return files_of(one.data) or one.name


__all__ = ["ScoredPool", "run_evidence", "scored_pool"]
