"""Run a part of the suite on other releases of transformers and torch, each in an environment of its own.

    python tests/matrix/run.py                    # all of ENVIRONMENTS (`make test-matrix`)
    python tests/matrix/run.py transformers-4.57  # one of them (`make test-matrix MATRIX=transformers-4.57`)

An environment is made in ``build/matrix/NAME`` and kept. Its result replaces its row in ``bench/results/matrix.csv``.
The exit code is 1 if a test fails. The standard library is enough to run this script.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "matrix"
TABLE = ROOT / "bench" / "results" / "matrix.csv"
COLUMNS = ("name", "python", "torch", "transformers", "passed", "failed", "skipped", "seconds", "date", "commit")

_NEWEST, _OLDEST = "2.13.0", "2.6.0"
_OLD_NUMPY = "numpy<2.4"
"""The interpreter of Triton 3.2, which torch 2.6 brings, fails with NumPy 2.4."""

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "transformers-4.57": (f"torch=={_NEWEST}", "transformers==4.57.6"),
    "transformers-5.6": (f"torch=={_NEWEST}", "transformers==5.6.0"),
    "transformers-5.16": (f"torch=={_NEWEST}", "transformers==5.16.1"),
    "transformers-5.24": (f"torch=={_NEWEST}", "transformers==5.24.0"),
    "torch-2.6-transformers-4.57": (f"torch=={_OLDEST}", "transformers==4.57.6", _OLD_NUMPY),
    "torch-2.6-transformers-5.24": (f"torch=={_OLDEST}", "transformers==5.24.0", _OLD_NUMPY),
}
"""Exact versions, by the name of the environment; pip chooses the rest. LLaMA-Factory 0.9.5 allows up to 5.6.0,
Axolotl 0.19 takes 5.16.1."""

TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "pytest-benchmark>=4", "hypothesis>=6.100",
         "accelerate>=1.1", "sentencepiece>=0.2", "protobuf>=4")  # fmt: skip

SUBSET = (
    "tests/models/test_releases.py",
    "tests/models/test_trunk.py",
    "tests/models/test_head.py",
    "tests/models/test_last_layer.py",
    "tests/models/test_rope.py",
    "tests/models/test_batching.py",
    "tests/models/test_packed_trunk.py",
    "tests/models/test_varlen_attention.py",
    "tests/data/test_masking.py",
    "tests/data/test_masking_rows.py",
    "tests/data/test_templates.py",
    "tests/kernels/test_surroundings.py",
    "tests/scoring/test_scorer.py",
    "tests/adapters/test_lazy_scorer.py",
)
"""What depends on the releases: models, masks, the switches of torch, and the adapters' scorer."""


def main(names: Sequence[str]) -> int:
    """Make and run the environments; returns the exit code."""
    failed = 0
    for name in names or ENVIRONMENTS:
        python = make(name)
        row = run(name, python)
        record(row)
        print(", ".join(f"{column}: {value}" for column, value in row.items()), flush=True)
        failed += int(row["failed"])
    return int(failed > 0)


def make(name: str) -> Path:
    """The interpreter of an environment, which is made if it is absent or has other versions."""
    folder = BUILD / name
    python, done = folder / "bin" / "python", folder / ".pins"
    wanted = "\n".join((*ENVIRONMENTS[name], *TOOLS))
    if not (done.exists() and done.read_text(encoding="utf-8") == wanted):
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *ENVIRONMENTS[name], *TOOLS, "-e", ROOT], check=True)
        done.write_text(wanted, encoding="utf-8")
    return python


def run(name: str, python: Path) -> dict[str, str]:
    """Run the subset in one process; the row of the table."""
    report = BUILD / f"{name}.xml"
    report.unlink(missing_ok=True)
    started = monotonic()
    # One thread, and no hub: the numbers must not depend on the machine.
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run([python.with_name("pytest"), *options, *SUBSET], cwd=ROOT, env=surroundings, check=False)
    seconds = monotonic() - started
    counts = counts_of(report)
    question = "import sys, torch, transformers as t; print(sys.version.split()[0], torch.__version__, t.__version__)"
    versions = subprocess.run([python, "-W", "ignore", "-c", question], check=True, capture_output=True, text=True)
    found, torch, transformers = versions.stdout.split()
    return {
        "name": name,
        "python": found,
        "torch": torch,
        "transformers": transformers,
        **{key: str(value) for key, value in counts.items()},
        "seconds": f"{seconds:.0f}",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }


def counts_of(report: Path) -> dict[str, int]:
    """Tests that passed, failed (errors too) and were skipped, of pytest's report; without one, one has failed."""
    if not report.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(key, "0")) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"passed": total - failed - skipped, "failed": failed or int(total == 0), "skipped": skipped}


def commit() -> str:
    """The short hash of the commit, with ``+`` if files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    scope = ["--untracked-files=no", "--", ".", f":!{TABLE.relative_to(ROOT)}"]
    changed = subprocess.run([*git, "status", "--porcelain", *scope], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def record(row: dict[str, str]) -> None:
    """Put a row into the table, in the order of the environments."""
    rows = {}
    if TABLE.exists():
        with TABLE.open(encoding="utf-8", newline="") as file:
            rows = {one["name"]: one for one in csv.DictReader(file)}
    rows[row["name"]] = row
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in ENVIRONMENTS if name in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ENVIRONMENTS)}; all by default")
    chosen = parser.parse_args().names
    if unknown := sorted(set(chosen) - set(ENVIRONMENTS)):
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(ENVIRONMENTS)}")
    sys.exit(main(chosen))
