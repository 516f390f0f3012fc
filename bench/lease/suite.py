"""(g) The GPU tests of the kernels, in twelve processes if pytest-xdist is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from lease.rows import Setting

ROOT = Path(__file__).resolve().parents[2]
_RESULT = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b")
_TEST = re.compile(r"tests/\S+::.+?(?= (?:PASSED|FAILED|ERROR|SKIPPED)|\s*$| - )")


def run(setting: Setting) -> None:
    """Add the counts, and a row for each test that failed."""
    if find_spec("pytest") is None:
        setting.add("pytest", "pytest", note="not installed: pytest")
        return
    parallel = ["-n", "12"] if find_spec("xdist") and not setting.dry else []
    chosen = (
        ["tests/kernels/test_triton_layout.py", "-k", "nothing_has_this_name"] if setting.dry else ["tests/kernels"]
    )
    command = [sys.executable, "-P", "-m", "pytest", "-v", "--tb=short", *parallel, "-m", "gpu", *chosen]
    counts: Counter[str] = Counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:  # the log keeps them, and a killed step leaves its failures
        print(line, end="", flush=True)
        found = result_of(line)
        if found is not None:
            outcome, test = found
            counts[outcome] += 1
            if outcome in ("FAILED", "ERROR"):
                setting.add("pytest", test, note=outcome)
    status = process.wait()
    for outcome in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
        setting.add("pytest", outcome.lower(), value=counts[outcome], unit="tests")
    workers = "12 processes" if parallel else "one process"
    setting.add("pytest", "exit status", value=status, note=f"{workers}; 5 means that no test was selected")


def result_of(line: str) -> tuple[str, str] | None:
    """Outcome and name of the test that a line of ``pytest -v`` reports, or None; the summary's lines are none."""
    outcome, test = _RESULT.search(line), _TEST.search(line)
    if outcome is None or test is None or line.startswith(("FAILED ", "ERROR ", "SKIPPED ")):
        return None
    return outcome[1], test[0].strip()
