"""Benchmarks of a recipe as measures of a trained model, and the domain of each of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.models.loading import wrap_model
from donod_fast.studies.core.tables import need
from donod_fast.studies.evidence.plan import Measure
from donod_fast.studies.paper.recipe import BenchmarkSection, PaperRecipe
from donod_fast.system.places import path_of

Run = Callable[[Any, BenchmarkSection], Mapping[str, float]]
"""A loaded model and a benchmark → its numbers from 0 to 1 by name, higher is better."""


def benchmark_measures(recipe: PaperRecipe, run: Run | None = None) -> dict[str, Measure]:
    """Measures by the names that identify them in cells.

    Args:
        recipe: the recipe.
        run: what measures; None for lm-eval on local files (:mod:`donod_fast.evaluation.harness`).

    Raises:
        InputError: a benchmark names no problems, they are not there, or the extra ``benchmarks`` is not installed.
    """
    found: dict[str, Measure] = {}
    for section in recipe.benchmarks:
        if section.problems is None or not path_of(section.problems).exists():
            raise InputError(
                f"{section.benchmark}: {section.problems or 'problems'} is not there; name its file or folder with "
                f"--set benchmarks.{recipe.benchmarks.index(section)}.problems=PATH"
            )
        if run is None:
            need("lm_eval", "benchmarks")
        found[measure_name(section)] = _measure(section, run or run_harness)
    return found


def measure_name(section: BenchmarkSection) -> str:
    """Name of a benchmark with the settings that decide its numbers: ``ifeval limit=8 …``."""
    values = section.model_dump(mode="json", exclude_defaults=True)
    settings = {key: value for key, value in values.items() if key in ("limit", "few_shot", "max_new_tokens")}
    return " ".join([section.benchmark, *(f"{key}={value}" for key, value in settings.items())])


def run_harness(loaded: Any, section: BenchmarkSection) -> Mapping[str, float]:
    """Measure a model with lm-eval on local files."""
    raise InputError(f"benchmark {section.benchmark} is not available in this release")


def domain_of(number: str, section: BenchmarkSection) -> str:
    """Domain of one number of a benchmark: that of its group (``agieval math`` is ``math``), or its only domain."""
    words = number.lower().replace(":", " ").split()
    return next((domain for domain in section.domains if domain.lower() in words), section.domains[0])


def _measure(section: BenchmarkSection, run: Run) -> Measure:
    def measured(model: Any, tokenizer: Any) -> Mapping[str, float]:
        return run(wrap_model(model, tokenizer), section)

    return measured


def problems_of(section: BenchmarkSection) -> Path:
    """The file or folder of a benchmark's problems."""
    return Path(path_of(section.problems or ""))


__all__ = ["Run", "benchmark_measures", "domain_of", "measure_name", "problems_of", "run_harness"]
