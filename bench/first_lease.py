"""Learn most from the first minutes on a GPU: one command of at most 540 seconds, whose results survive a kill.

    python bench/first_lease.py --prepare          # here: copies what must travel, prints the command for the device
    python bench/first_lease.py                    # there
    python bench/first_lease.py --dry-run          # anywhere: tiny shapes on a CPU, under Triton's interpreter

Each step is a process group with its own limit; one that exceeds it is killed and leaves the rows that it had written.
After every step ``bench/results/first_lease.csv`` grows, and the archive ``first_lease.tar.gz`` in the folder ``$OUT``
(or ``--out``) is replaced: the results and the logs, at most 16 MiB. Unpack it at the root of the repository and commit
the rows. The package need not be installed, and nothing needs git. ``docs/benchmarks/first-lease.md`` says what follows
from each number. The exit status is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "first_lease"
ARCHIVE = "first_lease.tar.gz"
LARGEST = 16 << 20
_LOG_BYTES = 1 << 20
TOTAL = 535.0
_TABLES = ("first_lease", "end_to_end")


@dataclass(frozen=True, slots=True)
class Step:
    """A step: its module in bench/lease, its limit in seconds (with the start of its process), what it tells."""

    name: str
    module: str
    seconds: float
    what: str


STEPS = (
    Step("a-rates", "rates", 25.0, "versions, rates of products and copies"),
    Step("b-compile", "compiling", 45.0, "compile every call of the later steps in 16 processes"),
    Step("c-truth", "truth", 60.0, "shipped tiles against float64"),
    Step("d-launches", "launches", 110.0, "every launch function beside its prediction, and variants"),
    Step("e-whole", "whole", 60.0, "don_nod beside the bare product and fused losses"),
    Step("f-counters", "profiling", 60.0, "Nsight Compute, one launch of each kernel"),
    Step("g-tests", "suite", 120.0, "GPU tests of the kernels"),
    Step("h-corpus", "corpus", 50.0, "one end-to-end row"),
)


def main() -> int:
    """Run the steps, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; results go to --out only")
    parser.add_argument("--prepare", action="store_true", help="copy what must travel, and print the command")
    parser.add_argument("--only", nargs="+", default=[], help="only the steps whose names begin with these texts")
    parser.add_argument("--budget", type=float, default=TOTAL, help="seconds for all steps")
    parser.add_argument("--if-missing", action="store_true", help="only steps not done for this device and commit")
    parser.add_argument("--limit", type=float, help="seconds for each step, instead of its own limit")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", WORK / "out"), help="folder of the archive")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        return run_step(options.step, options.file, dry=options.dry_run, seconds=options.limit or 60.0)
    if options.prepare:
        print(prepare())
        return 0
    wanted = [step for step in STEPS if not options.only or step.name.startswith(tuple(options.only))]
    sys.path.insert(0, str(ROOT / "bench"))
    import gpu  # noqa: F401 - puts donod_fast on the path where it is not installed
    import record
    from lease.rows import TABLE

    if not options.dry_run and record.device_name("cpu") == record.device_name():
        print("no CUDA device; --dry-run needs none", file=sys.stderr)
        return 2
    if options.if_missing:
        commit = record.circumstances()["commit"]
        done = {"name": "outcome", "value": "ok", "commit": commit}
        wanted = [step for step in wanted if not record.is_recorded(TABLE, step=step.name, **done)]
    return run_all(wanted, Path(options.out), dry=options.dry_run, budget=options.budget, limit=options.limit)


def prepare() -> str:
    """Copy the model and rows of ../shared to ``build/carry``; returns the command for the device and what to carry."""
    from lease.corpus import CARRIED, DATA, MODEL

    carry = ""
    shared = ROOT.parent / "shared"
    if (shared / MODEL).is_dir() and (shared / DATA).is_file():
        shutil.rmtree(CARRIED, ignore_errors=True)
        shutil.copytree(shared / MODEL, CARRIED / "shared" / MODEL)
        (CARRIED / "shared" / DATA).parent.mkdir(parents=True)
        shutil.copy(shared / DATA, CARRIED / "shared" / DATA)
        carry = f"carry: {CARRIED.relative_to(ROOT)}\n"
    import record

    commit = shlex.quote(record.circumstances("cpu")["commit"])
    return f"{carry}DONOD_FAST_COMMIT={commit} PYTHONUNBUFFERED=1 python3 bench/first_lease.py"


def run_all(steps: list[Step], out: Path, *, dry: bool, budget: float, limit: float | None) -> int:
    """Run steps in order under their limits; returns 1 if one failed."""
    begin = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)
    environment = _environment(dry)
    failed = []
    for step in steps:
        left = budget - (time.monotonic() - begin)
        allowed = min(limit or step.seconds, left)
        print(f"\n=== {step.name}: {step.what} (at most {max(allowed, 0):.0f} s)", flush=True)
        started = time.monotonic()
        command = _command(step, allowed, dry)
        failure = "no time was left" if allowed < 5 else supervise(command, step, environment, allowed)
        failed += [f"{step.name}: {failure}"] if failure else []
        collect(step, failure, time.monotonic() - started, out, dry=dry)
    print(f"\n=== {time.monotonic() - begin:.0f} s, {len(failed)} of {len(steps)} steps failed", *failed, sep="\n    ")
    return 1 if failed else 0


def _environment(dry: bool) -> dict[str, str]:
    from gpu import build_tree

    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(build_tree()), str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1",
        "TRITON_CACHE_DIR": os.environ.get("TRITON_CACHE_DIR", str(ROOT / "build" / "triton")),
    }
    if dry:
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    else:
        environment.pop("TRITON_INTERPRET", None)
    return environment


def _command(step: Step, allowed: float, dry: bool) -> list[str]:
    return [sys.executable, "-P", str(Path(__file__).resolve()), "--step", step.name, "--file", str(rows_file(step)),
            "--limit", str(allowed), *(["--dry-run"] if dry else [])]  # fmt: skip


def supervise(command: list[str], step: Step, environment: dict[str, str], allowed: float) -> str:
    """Run a step as a process group; returns "" or why it failed. Its output goes to its log, and the end is shown."""
    with log_file(step).open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT / "bench", env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(timeout=allowed)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # What a step has started ends with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print(log_file(step).read_text(encoding="utf-8", errors="replace")[-3000:], flush=True)
    if status is None:
        return f"stopped after {allowed:.0f} s"
    return f"exit status {status}" if status else ""


def rows_file(step: Step) -> Path:
    """Rows that a step has written."""
    return WORK / f"{step.name}.jsonl"


def log_file(step: Step) -> Path:
    """Output of a step."""
    return WORK / f"{step.name}.log"


def run_step(name: str, file: Path, *, dry: bool, seconds: float) -> int:
    """Run one step in this process."""
    from lease.rows import Setting

    setting = Setting(name, file, dry, seconds)
    if name == "profiled":
        from lease.profiling import target

        target(setting)
        return 0
    module = importlib.import_module(f"lease.{next(step.module for step in STEPS if step.name == name)}")
    with _small_tiles() if dry else contextlib.nullcontext():
        module.run(setting)
    return 0


def _small_tiles() -> contextlib.AbstractContextManager[None]:
    """The interpreter is slow."""
    import torch

    from donod_fast.kernels.triton_backend.architectures import CONSERVATIVE
    from donod_fast.kernels.triton_backend.configs import fixed_configs, override

    half = torch.bfloat16
    return override(fixed_configs(CONSERVATIVE, half, half, mapped=False, direct="short"))


def collect(step: Step, failure: str, taken: float, out: Path, *, dry: bool) -> None:
    """Add the step's rows and its outcome to the table, and replace the archive."""
    import record
    from lease.rows import COLUMNS, TABLE

    file = rows_file(step)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    outcome = {**dict.fromkeys(COLUMNS, ""), "step": step.name, "case": "step", "name": "outcome"}
    rows = [{**dict.fromkeys(COLUMNS, ""), **row} for row in rows]
    rows.append({**outcome, "value": failure or "ok", "note": f"{taken:.0f} s"})
    if dry:
        record.RESULTS = WORK / "results"
    record.write_rows(TABLE, rows)
    archive(out)


def archive(out: Path) -> Path:
    """Replace the archive: tables first, then logs as long as they fit."""
    import record

    scratch = WORK / ARCHIVE
    tables = [path for name in _TABLES if (path := record.RESULTS / f"{name}.csv").exists()]
    logs = sorted([*WORK.glob("*.log"), *WORK.glob("ncu.csv")])
    with tarfile.open(scratch, "w:gz") as tar:
        for path in tables:
            tar.add(path, f"bench/results/{path.name}")
        for path in logs:
            short = WORK / "short"
            short.write_bytes(path.read_bytes()[-_LOG_BYTES:])
            tar.add(short, f"build/first_lease/{path.name}")
    size = scratch.stat().st_size
    if size > LARGEST:  # nine logs of a MiB each do not come near it
        raise RuntimeError(f"the archive has {size} bytes")
    target = out / ARCHIVE
    shutil.copyfile(scratch, out / f".{ARCHIVE}")
    (out / f".{ARCHIVE}").replace(target)
    return target


if __name__ == "__main__":
    sys.exit(main())
