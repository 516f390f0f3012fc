"""Supervised fine-tuning of a subset: recipes, the trainer, its manifest, and cost estimates.

``recipe.py`` defines recipes and ``recipe_files.py`` reads them. ``samples.py`` makes the trainer's batches from the
same masks that scoring uses. ``trainer.py`` runs TRL on them in memory, and ``run.py`` in a folder that can be
resumed. ``planning.py`` estimates memory and operations beforehand.

The names below are imported when first used: they need the extra ``train``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.training.counting import recipe_counts
    from donod_fast.training.dynamic_pack import DynamicPackCollator
    from donod_fast.training.planning import TokenCounts, TrainPlan, plan_training
    from donod_fast.training.recipe import EvalSection, LoraSettings, Recipe, ScoreSection, StudySection, TrainSettings
    from donod_fast.training.recipe_files import apply_overrides, load_recipe, recipe_from, recipe_names
    from donod_fast.training.run import TrainOutcome, train
    from donod_fast.training.samples import TrainingRows, prepare_rows
    from donod_fast.training.trainer import TrainStats, train_model

__all__ = [
    "DynamicPackCollator",
    "EvalSection",
    "LoraSettings",
    "Recipe",
    "ScoreSection",
    "StudySection",
    "TokenCounts",
    "TrainOutcome",
    "TrainPlan",
    "TrainSettings",
    "TrainStats",
    "TrainingRows",
    "apply_overrides",
    "load_recipe",
    "plan_training",
    "prepare_rows",
    "recipe_counts",
    "recipe_from",
    "recipe_names",
    "train",
    "train_model",
]

_HOMES = {
    "counting": ("recipe_counts",),
    "dynamic_pack": ("DynamicPackCollator",),
    "planning": ("TokenCounts", "TrainPlan", "plan_training"),
    "recipe_files": ("apply_overrides", "load_recipe", "recipe_from", "recipe_names"),
    "run": ("TrainOutcome", "train"),
    "samples": ("TrainingRows", "prepare_rows"),
    "trainer": ("TrainStats", "train_model"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'donod_fast.training' has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "recipe")
    return getattr(import_module(f"donod_fast.training.{home}"), name)
