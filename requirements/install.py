"""Install a locked set of packages, and this package, into the environment that runs this script.

    python requirements/install.py dev            # requirements/dev.txt, then this package in editable mode
    python requirements/install.py release        # tools only

pip accepts only files whose hash is in the lock, and resolves nothing. Packages that are released as sources only
(``dev-sources.txt``) are built with the locked setuptools. PyTorch's CPU build (``torch-cpu.txt``) is taken
where pip's index or links offer it; another build of torch needs the CUDA libraries of ``cuda.txt``. At the end
``pip check`` compares what is installed with what each package asks for.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALONE = ("release", "audit", "locks")
"""Sets that are installed without this package."""


def main(name: str) -> None:
    """Install one set."""
    if name not in (*ALONE, "lowest"):
        install_cpu_torch()
    install_set(name)
    if name in ALONE:
        return
    if needs_cuda():
        install_set("cuda")
    pip("install", "--no-deps", "--no-build-isolation", "-e", str(HERE.parent))
    check()
    if name == "dev":
        install_set("real-model")


def install_set(name: str) -> None:
    """Install the packages of one lock file, and those of its sources."""
    pip("install", "--require-hashes", "--no-deps", "-r", str(HERE / f"{name}.txt"))
    sources = HERE / f"{name}-sources.txt"
    if sources.exists():
        pip("install", "--require-hashes", "--no-deps", "--no-build-isolation", "-r", str(sources))


def install_cpu_torch() -> None:
    """Install PyTorch's CPU build if it is offered; PyPI does not have it, and then the set has another build."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r"]
    done = subprocess.run([*command, str(HERE / "torch-cpu.txt")], check=False, capture_output=True, text=True)
    if done.returncode and "No matching distribution found" not in done.stderr:
        raise SystemExit(done.stderr)


def needs_cuda() -> bool:
    """Whether the installed torch asks for NVIDIA's libraries (PyPI's Linux builds do, its CPU build does not)."""
    try:
        version("torch")
    except PackageNotFoundError:
        return False
    wanted = [one for one in requires("torch") or [] if one.startswith(("nvidia-", "cuda-"))]
    return sys.platform == "linux" and bool(wanted)


def check() -> None:
    """Compare what is installed with what each package asks for, but for those of which only a file is used."""
    locked = (HERE / "real-model.txt").read_text(encoding="utf-8").splitlines()
    only_a_file = {line.partition("==")[0] for line in locked if "==" in line}
    done = subprocess.run([sys.executable, "-m", "pip", "check"], check=False, capture_output=True, text=True)
    wrong = [line for line in done.stdout.splitlines() if line.partition(" ")[0] not in only_a_file]
    if done.returncode and (wrong or not done.stdout):
        raise SystemExit("\n".join([*wrong, done.stderr, "pip check failed: these packages do not fit together"]))


def pip(*arguments: str) -> None:
    """Run pip quietly; an error ends this script with pip's own message."""
    quiet = ["-q"] if arguments[0] == "install" else []
    done = subprocess.run([sys.executable, "-m", "pip", *arguments, *quiet], check=False)
    if done.returncode:
        raise SystemExit(
            f"pip {arguments[0]} failed. If a hash does not match, the index serves another file than the one that was "
            "locked: find out why. To install without the lock: make LOCKED=0"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
