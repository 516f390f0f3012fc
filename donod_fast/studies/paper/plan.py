"""Plan a study of the paper before it runs: cells, tokens, memory, and hours of each accelerator.

No weights are loaded. What cannot be known is assumed, and the plan names each assumption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from donod_fast.errors import InputError
from donod_fast.studies.core.costs import SHARE_OF_BANDWIDTH, forward_flops, generation_hours, scoring_flops, speed
from donod_fast.studies.evidence.plan import COMPUTE, ROWS
from donod_fast.studies.paper.counts import BenchmarkCounts, benchmark_counts, corpus_counts, shape_of, training_of
from donod_fast.studies.paper.recipe import PaperRecipe
from donod_fast.studies.paper.sections import PoolSection
from donod_fast.system.wording import plural
from donod_fast.training.model_size import ModelSize, model_size
from donod_fast.training.planning import ACCELERATORS, UTILISATION, TokenCounts, TrainPlan, plan_training

SCORING, TRAINING, LOSSES, LOGLIKELIHOOD, GENERATING = (
    "scoring", "training", "held-out losses", "log-likelihoods", "generated answers",
)  # fmt: skip
STAGES = (SCORING, TRAINING, LOSSES, LOGLIKELIHOOD, GENERATING)

_ABLATION_LINES, _ABLATION_OFTEN = 11, 4  # lines of the ablation, and those that have a training for every seed
_NOISE_TOP, _NOISE_PLANTED = 0.2, 0.2
_OPTIMIZERS = 2  # of the output-layer study


@dataclass(frozen=True)
class Cost:
    """Cost of some cells of one kind.

    Attributes:
        part: the part of the study: ``"grid"``, ``"noise"``, ``"stability"``, ``"focus"`` or ``"ablation"``.
        stage: one of :data:`STAGES`.
        what: what is computed, for a reader.
        cells: number of cells.
        tokens: tokens that go through the model, each pass over a row counted once.
        flops: operations.
        hours: accelerator hours by name, see :data:`donod_fast.training.planning.ACCELERATORS`.
    """

    part: str
    stage: str
    what: str
    cells: int
    tokens: int
    flops: float
    hours: Mapping[str, float]


@dataclass(frozen=True)
class PaperPlan:
    """Cells and costs of a study of the paper.

    Attributes:
        name: name of the recipe.
        costs: costs by part and stage.
        trainings: training on the whole of each corpus, by ``train model on corpus``.
        unknown: assumptions and unknown quantities, one sentence each.
    """

    name: str
    costs: tuple[Cost, ...]
    trainings: Mapping[str, TrainPlan]
    unknown: tuple[str, ...]

    def total(self, gpu: str) -> float:
        """All hours of an accelerator."""
        return sum(one.hours[gpu] for one in self.costs)

    def cells(self, stage: str, part: str | None = None) -> int:
        """Number of cells of a stage, in one part or in all."""
        return sum(one.cells for one in self.costs if one.stage == stage and part in (None, one.part))

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "cells": {stage: self.cells(stage) for stage in STAGES},
            "costs": [
                {
                    "part": one.part,
                    "stage": one.stage,
                    "what": one.what,
                    "cells": one.cells,
                    "tokens": one.tokens,
                    "flops": one.flops,
                    "gpu_hours": dict(one.hours),
                }
                for one in self.costs
            ],
            "gpu_hours": {gpu: self.total(gpu) for gpu in ACCELERATORS},
            "trainings": {name: plan.as_dict() for name, plan in self.trainings.items()},
            "unknown": list(self.unknown),
        }

    def text(self) -> str:
        """For a reader."""
        header = ("part", "stage", "what", "cells", "tokens", *(f"{gpu} hours" for gpu in ACCELERATORS))
        rows = [
            (
                one.part,
                one.stage,
                one.what,
                f"{one.cells:,}",
                f"{one.tokens:,}",
                *(_hours(one.hours[g]) for g in ACCELERATORS),
            )
            for one in self.costs
        ]
        total = ("all", "", "", "", "", *(_hours(self.total(gpu)) for gpu in ACCELERATORS))
        cells = ", ".join(f"{self.cells(stage):,} × {stage}" for stage in STAGES if self.cells(stage))
        parts = [f"study    {self.name}", f"cells    {cells}", ""]
        first: dict[str, tuple[str, TrainPlan]] = {}
        for name, plan in self.trainings.items():
            first.setdefault(plan.model, (name, plan))
        for name, plan in first.values():
            parts += [f"one training on all rows: {name}", plan.text(), *_memory_words(plan), ""]
        parts += [_aligned([header, *rows, total], left=3), "", "assumed or unknown:"]
        return "\n".join([*parts, *(f"- {sentence}" for sentence in self.unknown)])


def plan_paper(recipe: PaperRecipe, *, gpu: str = "h100") -> PaperPlan:
    """Plan a study. Weights, corpora and the network need not be available.

    Args:
        recipe: the recipe.
        gpu: the accelerator that memory is planned for, a name of ``training.planning.ACCELERATORS``.

    Raises:
        InputError: the shape of a model, or the size of a corpus, cannot be known; or an unknown accelerator.
    """
    if gpu not in ACCELERATORS:
        raise InputError(f"accelerator {gpu!r} is not known; known are {', '.join(ACCELERATORS)}")
    return _Planner(recipe, gpu).plan()


class _Planner:
    def __init__(self, recipe: PaperRecipe, gpu: str) -> None:
        self.recipe, self.gpu, self.unknown = recipe, gpu, list[str]()
        self.configs = {one.name: shape_of(one) for one in recipe.models}
        self.sizes = {name: model_size(config) for name, config in self.configs.items()}
        first = recipe.model(recipe.pairs[0].train)
        config = self.configs[first.name]
        # A tokenizer changes counts by some per cent; one model's counts are used for all, and the plan says so.
        settings = {one.name: training_of(recipe, first, one) for one in recipe.pools}
        some = next(iter(settings.values()))
        self.pools = {one.name: corpus_counts(one, settings[one.name], config, self.unknown) for one in recipe.pools}
        self.heldouts = {one.name: corpus_counts(one, some, config, self.unknown) for one in recipe.heldouts}
        self.benchmarks = {one.benchmark: benchmark_counts(one, self.unknown) for one in recipe.benchmarks}
        if len(recipe.models) > 1:
            self.unknown.append(f"tokens are those of {first.name} for every model")
        self.trainings: dict[str, TrainPlan] = {}

    def plan(self) -> PaperPlan:
        costs = [*self._scoring(), *self._grid(), *self._noise(), *self._stability(), *self._focus(), *self._ablation()]
        self.unknown.append(
            f"hours: {UTILISATION:.0%} of the peak for training, scoring and losses, {SHARE_OF_BANDWIDTH:.0%} of the "
            "memory bandwidth for generating, every answer as long as it may be"
        )
        self.unknown.append(
            "selections: a share of the tokens equal to the share of the rows; every selection is counted as its own "
            "training, though equal ones are trained once"
        )
        return PaperPlan(self.recipe.name, tuple(costs), self.trainings, tuple(self.unknown))

    def _scoring(self) -> Iterator[Cost]:
        for model in dict.fromkeys(pair.score for pair in self.recipe.pairs):
            for pool, counts in self.pools.items():
                flops = scoring_flops(self.sizes[model], counts)
                yield _cost("grid", SCORING, f"{pool} by {model}", 1, counts.tokens, flops)
        further = [one for one in self.recipe.methods if one.partition("@")[0] not in _OF_ONE_PASS]
        if further:
            self.unknown.append(f"scoring: further passes of {', '.join(further)} are not counted")

    def _grid(self) -> Iterator[Cost]:
        recipe = self.recipe
        for pair in recipe.pairs:
            models = 0
            for pool in recipe.pools:
                whole = self._whole(pair.train, pool)
                extra = scoring_flops(self.sizes[pair.score], self.pools[pool.name])
                trainings, epochs, scorings = self._trainings(pool)
                flops = epochs * whole.flops + scorings * extra
                name = f"{pool.name}: {pair.train}" + (f" on rows of {pair.score}" if pair.crosses else "")
                yield _cost("grid", TRAINING, name, trainings, round(epochs * whole.tokens), flops)
                models += trainings
            yield from self._measures(pair.train, models + 1)

    def _trainings(self, pool: PoolSection) -> tuple[int, float, float]:
        """Trainings on selections of a corpus, how often they read it, and the scorings that random draws spend."""
        recipe = self.recipe
        seeds, methods, draws = len(recipe.seeds), len(recipe.methods), recipe.random.draws * recipe.random.seeds_each
        shares = list(recipe.shares)
        found: list[float] = [1.0] * seeds
        spent = 0
        for share in shares:
            found += [share] * (methods * seeds)
            for kind in recipe.random.kinds:
                count = draws if kind == ROWS else draws * methods
                found += [share] * count
                spent += count if kind == COMPUTE else 0
            if recipe.removal:
                found += [1.0 - share] * (methods * seeds + draws)
        if recipe.tuning.tokens is not None:  # each training has as many tokens
            tokens = self.pools[pool.name].tokens * recipe.tuning.epochs
            return len(found), len(found) * recipe.tuning.tokens / tokens, spent
        return len(found), sum(found), spent

    def _measures(self, model: str, models: int) -> Iterator[Cost]:
        """The measures of some trained models, and of the untrained one."""
        size = self.sizes[model]
        tokens = sum(one.tokens for one in self.heldouts.values())
        squares = sum(one.squares for one in self.heldouts.values())
        cells = models * len(self.heldouts)
        yield _cost("grid", LOSSES, f"{model}", cells, models * tokens, models * forward_flops(size, tokens, squares))
        for name, counts in self.benchmarks.items():
            what = f"{name}: {model}"
            if counts.new_tokens:
                yield self._generated(what, size, counts, models)
            else:
                flops = models * forward_flops(size, counts.read_tokens, counts.squares)
                yield _cost("grid", LOGLIKELIHOOD, what, models, round(models * counts.read_tokens), flops)

    def _generated(self, what: str, size: ModelSize, counts: BenchmarkCounts, models: int) -> Cost:
        batch = next(one.batch_size for one in self.recipe.benchmarks if one.benchmark == "ifeval")
        hours = {
            gpu: models
            * generation_hours(
                size,
                counts.problems,
                new_tokens=counts.new_tokens,
                prompt_tokens=counts.tokens,
                batch=batch,
                gpu=gpu,
                utilisation=UTILISATION,
            )
            for gpu in ACCELERATORS
        }
        tokens = models * counts.problems * (counts.new_tokens + counts.tokens)
        flops = forward_flops(size, tokens, 0.0)
        return Cost("grid", GENERATING, what, models, round(tokens), flops, hours)

    def _noise(self) -> Iterator[Cost]:
        section, model = self.recipe.noise, self.recipe.pairs[0].score
        if section is None:
            return
        each = 1 + len(section.kinds) * (_NOISE_TOP + _NOISE_PLANTED)
        for pool in self.pools:
            counts = _rows_of(self.pools[pool], section.rows * section.seeds * each)
            what = f"{pool}: {plural(section.seeds, 'seed')} of {plural(section.rows, 'row')}"
            yield _cost("noise", SCORING, what, section.seeds, counts.tokens, scoring_flops(self.sizes[model], counts))

    def _stability(self) -> Iterator[Cost]:
        section, model = self.recipe.stability, self.recipe.pairs[0].train
        if section is None:
            return
        for pool in self.recipe.pools:
            whole = self._whole(model, pool)
            rows = self.pools[pool.name].rows
            shares = [s for s in section.proportions for _ in (section.methods if s < 1 else section.methods[:1])]
            of_rows = min(1.0, section.rows / rows) * section.seeds
            counts = _rows_of(self.pools[pool.name], section.rows * section.seeds)
            yield _cost(
                "stability", SCORING, pool.name, section.seeds, counts.tokens, scoring_flops(self.sizes[model], counts)
            )
            epochs = of_rows * sum(shares)
            flops = epochs * whole.flops
            cells = len(shares) * section.seeds
            yield _cost("stability", TRAINING, pool.name, cells, round(epochs * whole.tokens), flops)
            held = self._target(pool)
            measured = (cells + 1) * held.tokens
            losses = (cells + 1) * forward_flops(self.sizes[model], held.tokens, held.squares)
            yield _cost("stability", LOSSES, pool.name, cells + 1, measured, losses)

    def _focus(self) -> Iterator[Cost]:
        section, model = self.recipe.focus, self.recipe.pairs[0].train
        if section is None:
            return
        for pool in self.recipe.pools:
            whole = self._whole(model, pool)
            epochs = section.train_rows / self.pools[pool.name].rows * section.epochs / self.recipe.tuning.epochs
            cells = _OPTIMIZERS * section.seeds
            flops = cells * epochs * whole.flops
            yield _cost("focus", TRAINING, pool.name, cells, round(cells * epochs * whole.tokens), flops)
        if section.rows:
            counts = _rows_of(next(iter(self.pools.values())), section.rows * _OPTIMIZERS)
            flops = 3 * forward_flops(self.sizes[model], counts.tokens, counts.squares)
            yield _cost("focus", SCORING, "every layer, by autograd", _OPTIMIZERS, counts.tokens, flops)

    def _ablation(self) -> Iterator[Cost]:
        section, model = self.recipe.ablation, self.recipe.pairs[0].train
        if section is None:
            return
        for pool in self.recipe.pools:
            whole = self._whole(model, pool)
            counts = _rows_of(self.pools[pool.name], section.rows)
            yield _cost("ablation", SCORING, pool.name, 1, counts.tokens, scoring_flops(self.sizes[model], counts))
            once = _ABLATION_OFTEN * section.seeds + (_ABLATION_LINES - _ABLATION_OFTEN) * section.setting_seeds
            cells = once * len(section.keeps) + section.seeds
            tokens = cells * section.tokens
            flops = tokens / whole.tokens * whole.flops
            yield _cost("ablation", TRAINING, pool.name, cells, tokens, flops)
            held = self._target(pool)
            losses = (cells + 1) * forward_flops(self.sizes[model], held.tokens, held.squares)
            yield _cost("ablation", LOSSES, pool.name, cells + 1, (cells + 1) * held.tokens, losses)

    def _target(self, pool: PoolSection) -> TokenCounts:
        """The held-out rows of a corpus's own domain."""
        return next(
            (self.heldouts[one.name] for one in self.recipe.heldouts if one.domain == pool.domain),
            next(iter(self.heldouts.values())),
        )

    def _whole(self, model: str, pool: PoolSection) -> TrainPlan:
        """A training on the whole of a corpus."""
        name = f"{model} on {pool.name}"
        if name not in self.trainings:
            counts = self.pools[pool.name]
            batch = max(1, round(self.recipe.tuning.step_tokens * counts.rows / counts.tokens))
            settings = training_of(self.recipe, self.recipe.model(model), pool, batch=batch)
            # The longest row stands for every row of its micro-batch, which training pads to it.
            self.trainings[name] = plan_training(settings, counts, config=self.configs[model], gpu=self.gpu)
        return self.trainings[name]


_OF_ONE_PASS = ("topsis", "nodon", "don", "nod", "weighted", "pareto", "loss", "entropy", "perplexity", "tokens")


def _cost(part: str, stage: str, what: str, cells: int, tokens: int, flops: float) -> Cost:
    return Cost(
        part, stage, what, cells, tokens, flops, {g: flops / speed(g, UTILISATION) / 3600 for g in ACCELERATORS}
    )


def _rows_of(counts: TokenCounts, rows: float) -> TokenCounts:
    """The counts of so many rows of average length, of which some may be there several times."""
    return replace(counts.share(rows / counts.rows), longest=counts.longest)


def _memory_words(plan: TrainPlan) -> Sequence[str]:
    if plan.gpus == 1:
        return ()
    return (
        f"         the study trains in one process on one device, and this needs {plan.gpus} × {plan.gpu}: set "
        "tuning.method=lora or a smaller tuning.step_tokens, or use the threshold study with --launch",
    )


def _hours(hours: float) -> str:
    return f"{hours:,.3g}" if hours < 1000 else f"{hours:,.0f}"


def _aligned(rows: Sequence[Sequence[str]], *, left: int) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


__all__ = [
    "GENERATING",
    "LOGLIKELIHOOD",
    "LOSSES",
    "SCORING",
    "STAGES",
    "TRAINING",
    "Cost",
    "PaperPlan",
    "plan_paper",
]
