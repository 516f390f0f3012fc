"""Benchmarks of a recipe as measures of a trained model, and the domain of each of their numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from donod_fast.errors import CorpusError, InputError
from donod_fast.models.loading import wrap_model
from donod_fast.studies.core.tables import need
from donod_fast.studies.evidence.plan import Measure
from donod_fast.studies.evidence.result import EvidenceRow, EvidenceStudy
from donod_fast.studies.paper.recipe import PaperRecipe
from donod_fast.studies.paper.sections import BenchmarkSection, PoolSection
from donod_fast.system.file_hashes import sha256_of
from donod_fast.system.places import path_of

Run = Callable[[Any, BenchmarkSection], Mapping[str, float]]
"""A loaded model and a benchmark → its numbers from 0 to 1 by name, higher is better."""

GROUPS = ("logic", "reading", "math")
"""AGIEval's groups in the paper; IFEval is a fourth."""

NON_TARGET, ALL_GROUPS = "average/non-target", "average/all groups"
"""The paper's averages: of the groups that are not the target, and of all four."""

_IFEVAL = ("prompt_strict", "instruction_strict")


def benchmark_measures(recipe: PaperRecipe, run: Run | None = None) -> dict[str, Measure]:
    """Measures by the names that identify them in cells, see :func:`measure_name`.

    Args:
        recipe: the recipe.
        run: what measures; None for lm-eval on local files (:mod:`donod_fast.evaluation.harness`).

    Raises:
        InputError: a benchmark names no problems, they are not there, or the extra ``benchmarks`` is not installed.
        CorpusError: the problems cannot be read.
    """
    found: dict[str, Measure] = {}
    for at, section in enumerate(recipe.benchmarks):
        if section.problems is None or not path_of(section.problems).exists():
            raise InputError(
                f"{section.benchmark}: {section.problems or 'its file or folder'} is not there; name it with "
                f"--set benchmarks.{at}.problems=PATH, or leave the benchmark out with --set 'benchmarks=[]'"
            )
        if run is None:
            need("lm_eval", "benchmarks")
        found[measure_name(section)] = _measure(section, run or run_harness)
    return found


def measure_name(section: BenchmarkSection) -> str:
    """Name of a benchmark with what decides its numbers: ``ifeval 1a2b3c4d``, settings and problems hashed.

    Raises:
        CorpusError: the problems cannot be read.
    """
    place = Path(path_of(section.problems or ""))
    files = sorted(place.glob("*")) if place.is_dir() else [place]
    settings = section.model_dump_json(include={"benchmark", "limit", "few_shot", "max_new_tokens", "chat_template"})
    try:
        hashes = [f"{file.name} {sha256_of(file)}" for file in files if file.is_file()]
    except OSError as error:
        raise CorpusError(f"{place} cannot be read: {error.strerror or error}") from error
    return f"{section.benchmark} {hashlib.sha256(' '.join([settings, *hashes]).encode()).hexdigest()[:8]}"


def shown_name(number: str) -> str:
    """A number's name for readers: ``ifeval prompt_strict``."""
    name, _, part = number.partition("/")
    return f"{name.partition(' ')[0]} {part}".strip().replace("_", " ")


def run_harness(loaded: Any, section: BenchmarkSection) -> Mapping[str, float]:
    """Measure a model with lm-eval on local files.

    Raises:
        InputError, CorpusError, ModelError: see ``donod_fast.evaluation.harness.measuring.measure``.
    """
    from donod_fast.evaluation.harness.measuring import measure

    settings: dict[str, Any] = {"limit": section.limit, "batch_rows": section.batch_size}
    if section.benchmark == "ifeval":
        settings |= {"max_new_tokens": section.max_new_tokens, "plain": not section.chat_template}
        found = measure(loaded, section.benchmark, section.problems or "", **settings)
        return {name: float(found[name]) for name in _IFEVAL}
    settings |= {"few_shot": section.few_shot, "chat_template": section.chat_template}
    groups = measure(loaded, section.benchmark, section.problems or "", **settings)["averages"]["groups"]
    return {name: float(groups[name]) for name in GROUPS}


def domain_of(number: str, section: BenchmarkSection) -> str:
    """Domain of one number of a benchmark: that of its group (``math``), or the benchmark's first domain."""
    return next((domain for domain in section.domains if domain.lower() == number.lower()), section.domains[0])


def with_averages(grid: EvidenceStudy, recipe: PaperRecipe) -> EvidenceStudy:
    """Add the paper's averages to every row, if all four groups are measured."""
    pools = {one.name: one for one in recipe.pools}
    return replace(grid, rows=tuple(_averaged(row, pools[row.pool]) for row in grid.rows))


def _averaged(row: EvidenceRow, pool: PoolSection) -> EvidenceRow:
    groups = {}
    for number, value in row.benchmarks.items():
        name, _, part = number.partition("/")
        if name.startswith("agieval "):
            groups[part] = value
        elif name.startswith("ifeval ") and part == _IFEVAL[0]:
            groups["ifeval"] = value
    if not {*GROUPS, "ifeval"} <= groups.keys():
        return row
    others = [value for name, value in groups.items() if name != pool.domain]
    averages = {NON_TARGET: fmean(others), ALL_GROUPS: fmean(groups.values())}
    return replace(row, benchmarks={**row.benchmarks, **averages})


def _measure(section: BenchmarkSection, run: Run) -> Measure:
    def measured(model: Any, tokenizer: Any) -> Mapping[str, float]:
        return run(wrap_model(model, tokenizer), section)

    return measured


__all__ = [
    "ALL_GROUPS",
    "GROUPS",
    "NON_TARGET",
    "Run",
    "benchmark_measures",
    "domain_of",
    "measure_name",
    "run_harness",
    "shown_name",
    "with_averages",
]
