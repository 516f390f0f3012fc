"""Code benchmarks: problems, prompts, programs from a model, verdicts from the sandbox, and pass@k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from donod_fast.evaluation.benchmarks import BENCHMARKS
from donod_fast.evaluation.generation_settings import GenerationSettings
from donod_fast.evaluation.problems import Problem, load_problems
from donod_fast.evaluation.result import EvalResult
from donod_fast.evaluation.run import JudgeSettings, evaluate_samples
from donod_fast.evaluation.samples import Sample, canonical_samples, read_samples

if TYPE_CHECKING:
    from donod_fast.evaluation.generation import generate

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
    if name == "generate":  # the only name that needs torch; verdicts do not
        from donod_fast.evaluation.generation import generate

        return generate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
