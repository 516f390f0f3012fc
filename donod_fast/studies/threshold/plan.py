"""Estimate the cost of a threshold study before it runs: cells, rows, tokens, memory and accelerator hours.

No weights are loaded: the model is built on the meta device from its config. If the data is available its tokens are
counted. What cannot be known is assumed, and the plan names the assumption.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import CorpusError, InputError
from donod_fast.selection.column_methods import FILTERED, split_end
from donod_fast.selection.kmeans_ifd import KMEANS_IFD
from donod_fast.studies.core.costs import assumed_speeds, generation_hours, scoring_flops, speed
from donod_fast.studies.core.selecting import ALL, BY_THRESHOLD, Selection
from donod_fast.studies.threshold.family_files import is_family, with_family
from donod_fast.studies.threshold.parts import named_sections, section_problems
from donod_fast.studies.threshold.run import selections_of
from donod_fast.system.wording import shortened

if TYPE_CHECKING:
    from donod_fast.training import EvalSection, Recipe
    from donod_fast.training.planning import TokenCounts, TrainPlan

_ROWS, _ROW_TOKENS = 20_000, 200  # if nothing is known
_TASKS = {"humaneval": 164, "humaneval+": 164, "mbpp": 500, "mbpp+": 378, "mbpp-sanitized": 257}  # test splits
_PROMPT_TOKENS = 200  # prompt tokens of a task that is not available


@dataclass(frozen=True, slots=True)
class PlannedSelection:
    """One selection's trainings.

    Attributes:
        selection: the selection.
        share: share of the rows that can be scored; None if it depends on the scores.
        rows, tokens: rows and tokens of one training, over all epochs.
        trainings: number of its trainings, without those that an earlier selection has as well.
        hours: accelerator hours of one training.
    """

    selection: Selection
    share: float | None
    rows: int | None
    tokens: int | None
    trainings: int
    hours: float | None


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study's cells and costs.

    Attributes:
        name: name of the recipe.
        counts: tokens of an epoch on everything.
        training: the plan of a training on everything.
        selections: selections in the report's order.
        measures: number of measurements with each benchmark and the held-out data.
        seeds: number of seeds of training.
        score_hours, train_hours, generate_hours: total accelerator hours.
        generated: maximum number of generated tokens.
        unknown: assumptions and unknown quantities, one sentence each.
    """

    name: str
    counts: TokenCounts
    training: TrainPlan
    selections: tuple[PlannedSelection, ...]
    measures: Mapping[str, int]
    seeds: int
    score_hours: float
    train_hours: float
    generate_hours: float
    generated: int
    unknown: tuple[str, ...]

    @property
    def trainings(self) -> int:
        """Number of distinct trainings, as far as known."""
        return sum(one.trainings for one in self.selections)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "cells": {"score": 1, "train": self.trainings, **self.measures},
            "seeds": self.seeds,
            "training": self.training.as_dict(),
            "selections": [
                {
                    **one.selection.as_dict(),
                    "share": one.share,
                    "rows": one.rows,
                    "tokens": one.tokens,
                    "trainings": one.trainings,
                    "gpu_hours_each": one.hours,
                }
                for one in self.selections
            ],
            "gpu": self.training.gpu,
            "gpu_hours": {"score": self.score_hours, "train": self.train_hours, "generate": self.generate_hours},
            "generated_tokens_at_most": self.generated,
            "unknown": list(self.unknown),
        }

    def text(self) -> str:
        """For a reader."""
        gpu = self.training.gpu
        cells = ", ".join(f"{count} × {name}" for name, count in self.measures.items())
        total = self.score_hours + self.train_hours + self.generate_hours
        table = [("method", "kept", "rows", "tokens", "trainings", f"{gpu} hours each"), *map(_row, self.selections)]
        widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
        shown = "\n".join(
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))]
                + [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
            )
            for row in table
        )
        parts = [
            f"study    {self.name}: {len(self.selections)} selections × {self.seeds} seeds",
            f"cells    1 × score, {self.trainings} × train, {cells}",
            "",
            "a training on everything",
            self.training.text(),
            "",
            shown,
            "",
            f"{gpu} hours: scoring {self.score_hours:,.2g}, {self.trainings} trainings {self.train_hours:,.3g}, "
            f"generating at most {self.generated:,} tokens {self.generate_hours:,.2g}; {total:,.3g} in all",
        ]
        if self.unknown:
            parts += ["", "assumed or unknown:", *(f"- {sentence}" for sentence in self.unknown)]
        return "\n".join(parts)


def plan_threshold(
    recipe: Recipe,
    *,
    rows: int | None = None,
    row_tokens: float | None = None,
    gpu: str = "h100",
) -> StudyPlan:
    """Plan a study. Corpus, weights and problems need not be available.

    Args:
        recipe: recipe of the study.
        rows, row_tokens: number of rows and mean tokens per row, if the corpus is not available.
        gpu: a name in :data:`donod_fast.training.planning.ACCELERATORS`.

    Raises:
        InputError: the recipe has no cells, or the model's shape cannot be determined.
    """
    if is_family(recipe):
        with tempfile.TemporaryDirectory() as folder:
            return plan_threshold(with_family(recipe, Path(folder)), rows=rows, row_tokens=row_tokens, gpu=gpu)
    from donod_fast.training.model_size import model_config, model_size
    from donod_fast.training.planning import plan_training

    unknown: list[str] = []
    train = recipe.train
    config = model_config(train.model, revision=train.revision, trust_remote_code=train.trust_remote_code)
    counts = _counts(recipe, config, rows, row_tokens, unknown)
    whole = plan_training(train, counts, config=config, gpu=gpu)
    seeds = len(recipe.study.seeds)
    planned = _selections(recipe, whole, unknown)
    trainings = sum(one.trainings for one in planned)
    scoring_config = config if recipe.score.model is None else model_config(recipe.score.model)
    size = whole.size if recipe.score.model is None else model_size(scoring_config)
    generated, generate_hours, measures = 0, 0.0, {}
    for name, section in named_sections(recipe).items():
        tasks = _tasks(section, unknown)
        samples = tasks * section.samples_per_task * (trainings + 1)
        generated += samples * section.max_new_tokens
        generate_hours += _generation_hours(whole, section, samples)
        measures[name] = trainings + 1
    if recipe.heldout:
        measures["heldout"] = trainings + 1
    unknown.append(f"hours: {assumed_speeds(gpu, whole.utilisation)}, every answer as long as it may be")
    return StudyPlan(
        name=recipe.name,
        counts=counts,
        training=whole,
        selections=tuple(planned),
        measures=measures,
        seeds=seeds,
        score_hours=scoring_flops(size, counts) / speed(whole.gpu, whole.utilisation) / 3600,
        train_hours=sum(one.trainings * (one.hours or 0.0) for one in planned),
        generate_hours=generate_hours,
        generated=generated,
        unknown=tuple(unknown),
    )


def _counts(recipe: Recipe, config: Any, rows: int | None, row_tokens: float | None, unknown: list[str]) -> TokenCounts:
    from donod_fast.training.counting import recipe_counts
    from donod_fast.training.planning import TokenCounts

    if rows is None and row_tokens is None:
        section = recipe.score
        try:
            return recipe_counts(recipe, config, split=section.split, revision=section.data_revision)
        except CorpusError as error:
            unknown.append(f"the corpus is not available ({_first_line(error)})")
    stated = [
        f"{name} {value:,} {'(given)' if given else '(assumed; say how many there are)'}"
        for name, value, given in (
            ("rows", rows or _ROWS, rows is not None),
            ("tokens a row", row_tokens or _ROW_TOKENS, row_tokens is not None),
        )
    ]
    unknown.append(f"the corpus: {', '.join(stated)}")
    return TokenCounts.guessed(rows or _ROWS, row_tokens or _ROW_TOKENS, "assumed")


def _selections(recipe: Recipe, whole: TrainPlan, unknown: list[str]) -> list[PlannedSelection]:
    found: list[PlannedSelection] = []
    seen: set[Any] = set()
    for chosen in selections_of(recipe):
        share = _share(chosen)
        if share is None:
            unknown.append(
                f"how many rows have {chosen.amount}: only the scores can tell; its trainings cost no hours here"
            )
        # The quantile q of DON keeps what `don` keeps at 1 − q.
        same = ("don", round(share, 9)) if share is not None and chosen.method in ("don", BY_THRESHOLD) else chosen
        filtered = split_end(chosen.method)[0] in (*FILTERED, KMEANS_IFD)
        if filtered:
            unknown.append(f"{chosen.method}: keeps {chosen.amount} of the rows with IFD < 1, counted as if all were")
        new = ("all",) if share == 1.0 and not filtered else same
        trainings = 0 if new in seen else len(recipe.study.seeds)
        seen.add(new)
        part = None if share is None else whole.counts.share(share)
        epochs = whole.tokens / whole.counts.tokens
        found.append(
            PlannedSelection(
                chosen,
                share,
                None if part is None else part.rows,
                None if part is None else round(epochs * part.tokens),
                trainings,
                None if share is None else whole.gpu_hours * share,
            )
        )
    return found


def _share(chosen: Selection) -> float | None:
    if chosen.method == ALL:
        return 1.0
    if chosen.keep is not None:
        return chosen.keep
    return None if chosen.don_quantile is None else 1.0 - chosen.don_quantile


def _tasks(section: EvalSection, unknown: list[str]) -> int:
    from donod_fast.evaluation.benchmarks import find_benchmark

    if section.problems is not None:
        try:
            return len(section_problems(section))
        except (CorpusError, InputError) as error:
            unknown.append(f"{section.benchmark}'s problems are not available ({_first_line(error)})")
    name = find_benchmark(section.benchmark).name
    if name not in _TASKS:
        raise InputError(f"benchmark {name} has no tasks on the hub: name its problems file")
    tasks = _TASKS[name]
    unknown.append(f"{section.benchmark} has {tasks} tasks on the hub, with prompts of {_PROMPT_TOKENS} tokens assumed")
    return tasks if section.limit is None else min(tasks, section.limit)


def _generation_hours(whole: TrainPlan, section: EvalSection, samples: int) -> float:
    return generation_hours(
        whole.size,
        samples,
        new_tokens=section.max_new_tokens,
        prompt_tokens=_PROMPT_TOKENS,
        batch=section.batch_size,
        gpu=whole.gpu,
        utilisation=whole.utilisation,
    )


def _row(one: PlannedSelection) -> tuple[str, ...]:
    unknown = "?"
    return (
        one.selection.method,
        one.selection.amount,
        unknown if one.rows is None else f"{one.rows:,}",
        unknown if one.tokens is None else f"{one.tokens:,}",
        str(one.trainings) if one.trainings else "same",
        unknown if one.hours is None else f"{one.hours:,.3g}",
    )


def _first_line(error: Exception) -> str:
    return shortened(str(error).partition("\n")[0], 160)


__all__ = ["PlannedSelection", "StudyPlan", "plan_threshold"]
