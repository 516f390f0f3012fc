"""Run the conformance tests of each host in an environment of its own, and write the table of what was run.

    python tests/hosts/run_hosts.py --out bench/results/hosts.csv [HOST …]

``tests/hosts/HOST/requirements.txt`` pins the host and what it needs beside this package. The environment is
``build/hosts/HOST``; it is made again only if that file, ``pyproject.toml`` or ``setup.py`` changed. A host whose
environment cannot be made, or whose tests fail, gets a row that says so, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "pytest-benchmark>=4", "hypothesis>=6.100")
FIELDS = (
    "host",
    "version",
    "python",
    "torch",
    "transformers",
    "passed",
    "failed",
    "skipped",
    "result",
    "date",
    "commit",
)
SHOWN = ("torch", "transformers")


def hosts() -> list[str]:
    """The names of all hosts."""
    return sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))


def main() -> int:
    """Run the hosts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"of {', '.join(hosts())}")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "hosts.csv")
    arguments = parser.parse_args()
    wanted = arguments.hosts or hosts()
    if unknown := sorted(set(wanted) - set(hosts())):
        parser.error(f"unknown hosts {unknown}; known are {hosts()}")
    results = {name: run(name) for name in wanted}
    write(arguments.out, results)
    for name, row in results.items():
        print(f"{name:14} {row['version']:10} {row['result']}: {row['passed']} passed, {row['failed']} failed, "
              f"{row['skipped']} skipped")  # fmt: skip
    return int(any(row["result"] != "passed" for row in results.values()))


def run(name: str) -> dict[str, str]:
    """Make the environment of a host, run its tests, and describe both."""
    row = dict.fromkeys(FIELDS, "") | {
        "host": name,
        "passed": "0",
        "failed": "0",
        "skipped": "0",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
    }
    python, problem = environment(name)
    if problem:
        return row | {"result": problem}
    row |= versions(name, python)
    report = ROOT / "build" / "hosts" / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", f"tests/hosts/{name}", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    # The suite runs Triton's interpreter; a host's own run does not.
    environ = {**os.environ, "DONOD_FAST_HOSTS": "1"}  # also the tests that are too slow for the ordinary suite
    subprocess.run([str(word) for word in command], cwd=ROOT, env=environ, check=False)
    if not report.exists():
        return row | {"result": "pytest did not start"}
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in ET.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        counts["failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"] += 1
    good = counts["passed"] and not counts["failed"] and not counts["skipped"]
    return row | {key: str(count) for key, count in counts.items()} | {"result": "passed" if good else "failed"}


def environment(name: str) -> tuple[Path, str]:
    """The interpreter of a host's environment, made if need be; and what went wrong, or an empty text."""
    folder = ROOT / "build" / "hosts" / name
    python = folder / "bin" / "python"
    wanted = HERE / name / "requirements.txt"
    content = b"".join(path.read_bytes() for path in (wanted, ROOT / "pyproject.toml", ROOT / "setup.py"))
    mark = folder / "installed"
    digest = hashlib.sha256(content).hexdigest()
    if python.exists() and mark.exists() and mark.read_text() == digest:
        return python, ""
    base = python_of(wanted)
    subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
    log = folder / "install.log"
    # The host first, as its users have it; then this package, which must fit beside it.
    steps = [["-r", str(wanted)], ["-r", str(wanted), "-e", str(ROOT), *TOOLS]]
    with log.open("w", encoding="utf-8") as out:
        for step in steps:
            done = subprocess.run(
                [str(python), "-m", "pip", "install", *step], stdout=out, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode:
                return python, f"not installable: see {log.relative_to(ROOT)}"
    mark.write_text(digest)
    return python, ""


def python_of(requirements: Path) -> str:
    """The interpreter that a host wants: a first line such as ``# python3.12``, else this one."""
    first = requirements.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ").strip() if first.startswith("# python3.") else sys.executable


def versions(name: str, python: Path) -> dict[str, str]:
    """The versions of the host, PyTorch and transformers in an environment."""
    requirement = next(
        line for line in (HERE / name / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith(("#", "-"))
    )  # fmt: skip
    package = requirement.split("==")[0].split("[")[0]
    code = (
        "import json, platform; from importlib.metadata import version;"
        f"print(json.dumps({{'version': version({package!r}), 'python': platform.python_version(),"
        f" **{{one: version(one) for one in {SHOWN!r}}}}}))"
    )
    return dict(json.loads(_output(str(python), "-c", code)))


def write(path: Path, results: dict[str, dict[str, str]]) -> None:
    """Replace the rows of these hosts in the table; those of others stay."""
    before: dict[str, dict[str, str]] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            before = {row["host"]: row for row in csv.DictReader(file)}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for _, row in sorted((before | results).items()))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
