"""Code benchmarks: problems, prompts, programs from a model, verdicts from the sandbox, and pass@k.

The names below are imported when first used, so that the command line can read the settings of this room at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.evaluation.benchmarks import BENCHMARKS
    from donod_fast.evaluation.generation import generate
    from donod_fast.evaluation.generation_settings import GenerationSettings
    from donod_fast.evaluation.problems import Problem, load_problems
    from donod_fast.evaluation.result import EvalResult
    from donod_fast.evaluation.run import JudgeSettings, evaluate_samples
    from donod_fast.evaluation.samples import Sample, canonical_samples, read_samples

_HOMES = {
    "BENCHMARKS": "benchmarks",
    "EvalResult": "result",
    "GenerationSettings": "generation_settings",
    "JudgeSettings": "run",
    "Problem": "problems",
    "Sample": "samples",
    "canonical_samples": "samples",
    "evaluate_samples": "run",
    "generate": "generation",
    "load_problems": "problems",
    "read_samples": "samples",
}

__all__ = [
    "BENCHMARKS",
    "EvalResult",
    "GenerationSettings",
    "JudgeSettings",
    "Problem",
    "Sample",
    "canonical_samples",
    "evaluate_samples",
    "generate",
    "load_problems",
    "read_samples",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"donod_fast.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
