"""Every shipped tile shape compiles for every architecture, fits its shared memory and spills nothing.

It runs in a separate process, because in this one the kernels are decorated for the interpreter.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from donod_fast.kernels.triton_backend.configs import ARCHITECTURES

RECORDED = Path(__file__).parents[2] / "bench" / "results" / "compiled.csv"
COLUMNS = ("architecture", "kernel", "variant", "dtype", "tile", "warps", "stages")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-m", "donod_fast.kernels.triton_backend.compiled", *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_shipped_config_compiles_everywhere_without_spilling(tmp_path: Path) -> None:
    table = tmp_path / "compiled.csv"
    done = command("--csv", str(table))
    assert done.returncode == 0, done.stderr
    rows = read(table)
    assert (
        {row["architecture"] for row in rows} == set(ARCHITECTURES) >= {"sm_80", "sm_89", "sm_90", "sm_100", "gfx942"}
    )
    kernels = {"logits", "direct", "gram", "cross", "token_statistics", "sample_sums", "rescue", "topsis_closeness"}
    for architecture in ARCHITECTURES:
        mine = [row for row in rows if row["architecture"] == architecture]
        assert {row["kernel"] for row in mine} >= kernels
        for row in mine:
            assert int(row["shared_bytes"]) <= int(row["shared_limit"])
            assert int(row["spilled"]) == 0
            assert int(row["registers"]) > 0
    recorded = {tuple(row[name] for name in COLUMNS) for row in read(RECORDED)}
    assert {tuple(row[name] for name in COLUMNS) for row in rows} == recorded, "record the table again: make compiled"
    print(done.stdout)


def test_a_config_that_is_too_large_is_reported() -> None:
    """The check can fail: a tile that needs more shared memory than there is."""
    script = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from donod_fast.kernels.triton_backend import compiled, configs\n"
        "row = configs._TABLE['sm_89']\n"
        "configs._TABLE['sm_89'] = replace(row, plain=replace(row.plain, dim=64, stages=6))\n"
        "first = next(v for v in compiled.variants('sm_89') if v.kernel == 'logits')\n"
        "print(compiled.compile_variant(first).problem)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", script], capture_output=True, text=True, env=environment
    )
    assert "shared memory" in done.stdout + done.stderr
