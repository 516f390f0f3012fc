"""Quick benchmarks: ``pytest bench --benchmark-enable`` (the ordinary test suite does not run them).

    pytest bench --benchmark-enable --benchmark-group-by=group

The floor, ours and TOPSIS at small shapes, on a CUDA device if there is one. The full table is ``head.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_case import Case, Program
from head_rows import FLOOR
from shapes import LENGTHS, SHAPES
from topsis import columns

from donod_fast.kernels import topsis

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    """Rows of a small case by name."""
    case = Case(
        SHAPES["small" if ON_GPU else "tiny"],
        LENGTHS["gsm8k"],
        1024,
        device=DEVICE,
        dtype=torch.bfloat16 if ON_GPU else torch.float32,
        loop_samples=1,
    )
    return {program.name: program for program in case.programs()}


@pytest.mark.parametrize("row", [FLOOR, "ours sgd", "ours adamw"])
def test_head_phase(benchmark: Any, programs: dict[str, Program], row: str) -> None:
    benchmark.group = "head phase"
    benchmark(finished, programs[row].run)


def test_topsis(benchmark: Any) -> None:
    benchmark.group = "topsis"
    don, nod = columns(100_000, DEVICE.type)
    benchmark(finished, lambda: topsis(don, nod))


def finished(program: Any) -> None:
    """Run a program and wait for the device."""
    program()
    if ON_GPU:
        torch.cuda.synchronize()
