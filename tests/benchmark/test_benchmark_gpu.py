"""The benchmark on a CUDA device: a small shape with every program, also compiled and in float8 if available."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from donod_fast.benchmark import table
from donod_fast.benchmark.run import run_benchmark
from donod_fast.benchmark.settings import BenchmarkSettings
from donod_fast.models.shapes import SHAPES, ModelShape

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_every_program_runs_on_the_device_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", ModelShape("tiny", "llama", 1024, 256, 2, 512, 4, 2, 1024))
    settings = BenchmarkSettings(("tiny",), ("code",), tokens=20_000, rounds=2, out=tmp_path, device="cuda")
    rows = {table.program_of(row["row"]): row for row in run_benchmark(settings)}
    assert list(rows) == [name for name in table.ROWS if name != table.TRUNK_TOGETHER]
    for name in (table.RATE, table.PAPER, table.PADDED, table.TRUNK, table.OURS):
        assert rows[name]["median_ms"], rows[name]["note"]
    for name in (table.COMPILED, table.FLOAT8):
        assert rows[name]["median_ms"] or rows[name]["note"]
    assert rows[table.OURS]["dtype"] == "bfloat16"
    assert rows[table.OURS]["peak_mib"] > 0 and 0 <= rows[table.OURS]["device_idle"] < 1
