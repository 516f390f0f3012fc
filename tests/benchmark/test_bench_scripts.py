"""The scripts of bench/ import: no other test loads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = sorted(path.stem for path in BENCH.glob("*.py") if not path.stem.startswith("test_"))

# One process for all, since most of its time is the import of torch.
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


@pytest.mark.slow
def test_every_bench_script_can_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *SCRIPTS], cwd=BENCH, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
