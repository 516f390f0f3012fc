"""Run the tests and benchmarks that need a GPU, and record the rows that are missing for this device.

    python bench/gpu.py --list                # the steps and what is missing; needs no GPU
    python bench/gpu.py --budget 540          # as many steps as fit; rerun it for the rest

A step is a separate process of at most nine minutes. Rows are written to bench/results/ as each step ends; a step whose
rows are recorded for this device is skipped, and a failing step does not stop the others. The package need not be
installed: a tree in which kernels/ is donod_fast/kernels is created under build/gpu. With ``--copy-to DIR`` (or the
environment variable OUT) results are copied there after every step. The exit status is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if find_spec("donod_fast") is None:  # last on the path, since kernels/ would hide a package of that name
    sys.path.append(str(ROOT))

from head_rows import case_columns, missing_rows  # noqa: E402
from record import (  # noqa: E402
    ANY_ACCELERATOR,
    RESULTS,
    circumstances,
    device_name,
    is_recorded,
    recorded_rows,
    write_rows,
)
from shapes import LENGTHS, SHAPES  # noqa: E402

from donod_fast.benchmark import table  # noqa: E402
from donod_fast.benchmark.corpus import LENGTHS as PROFILES  # noqa: E402
from donod_fast.models import shapes as models  # noqa: E402

LIMIT = 540.0


@dataclass(frozen=True, slots=True)
class Step:
    """A process to run from the root of the repository.

    Attributes:
        command: arguments to the Python interpreter.
        seconds: estimated duration, used for the budget only.
        missing: rows that are not recorded yet; "" if all are recorded.
        obstacle: the reason why it cannot run here, or "".
        tests: the test file that it runs and whose outcome is recorded, or "".
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    missing: str
    obstacle: str = ""
    tests: str = ""


def main() -> int:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="show the steps and what is missing")
    parser.add_argument("--only", help="only steps whose name contains this text")
    parser.add_argument("--again", action="store_true", help="also run steps whose rows are recorded")
    parser.add_argument("--budget", type=float, help="seconds after which no step is started or continued")
    parser.add_argument("--copy-to", type=Path, default=os.environ.get("OUT"), help="folder for a copy of the results")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    todo = [step for step in steps(device_name() if on_gpu else ANY_ACCELERATOR) if (options.only or "") in step.name]
    if options.list:
        print("device:", device_name() if on_gpu else "no CUDA device; rows of any device count as recorded")
        for step in todo:
            state = f"cannot run: {step.obstacle}" if step.obstacle else step.missing and f"missing: {step.missing}"
            print(f"{step.name:58s} ~{step.seconds:4.0f} s  {state or 'recorded'}")
        return 0
    if not on_gpu:
        print("no CUDA device", file=sys.stderr)
        return 2
    return run_all(todo, again=options.again, budget=options.budget, copy_to=options.copy_to)


def run_all(todo: list[Step], *, again: bool, budget: float | None, copy_to: Path | None) -> int:
    """Run steps in order and print the summary; returns 1 if one failed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(build_tree()),
        "PYTHONUNBUFFERED": "1",
        "DONOD_FAST_COMMIT": circumstances()["commit"],  # the tree is not in a repository
    }
    begin = time.monotonic()
    outcome: dict[str, list[str]] = {"done": [], "skipped": [], "failed": [], "left": []}
    for step in todo:
        left = LIMIT if budget is None else budget - (time.monotonic() - begin)
        if not (step.missing or again):
            outcome["skipped"].append(f"{step.name} (recorded)")
        elif step.obstacle:
            outcome["left"].append(f"{step.name} ({step.obstacle})")
        elif budget is not None and step.seconds > left:
            outcome["left"].append(f"{step.name} (about {step.seconds:.0f} s, {max(left, 0):.0f} s left)")
        else:
            print(f"\n=== {step.name}", flush=True)
            started = time.monotonic()
            failure = run_step(step, environment, min(LIMIT, left))
            took = time.monotonic() - started
            outcome["failed" if failure else "done"].append(f"{step.name} ({failure or 'ok'}, {took:.0f} s)")
            if copy_to is not None:
                shutil.copytree(RESULTS, Path(copy_to) / "results", dirs_exist_ok=True)
    print("\n=== summary")
    for kind, names in outcome.items():
        print(f"{kind}: {len(names)}", *names, sep="\n    ")
    return 1 if outcome["failed"] else 0


def run_step(step: Step, environment: dict[str, str], limit: float) -> str:
    """Run one step and show its output; returns "" or the failure."""
    process = subprocess.Popen(
        [sys.executable, *step.command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    last = ""
    with _Alarm(process, limit) as alarm:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
        status = process.wait()
    failure = f"stopped after {limit:.0f} s" if alarm.rang else f"exit status {status}" if status else ""
    if step.tests:
        _record_tests(step.tests, last, failure)
    return failure


def build_tree() -> Path:
    """Create ``build/gpu`` with the package as it would be installed."""
    tree = ROOT / "build" / "gpu"
    shutil.rmtree(tree, ignore_errors=True)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "donod_fast", tree / "donod_fast", ignore=no_caches)
    shutil.copytree(ROOT / "kernels", tree / "donod_fast" / "kernels", ignore=no_caches)
    return tree


def steps(device: str) -> list[Step]:
    """Every step, the most informative first; only rows of ``device`` count as recorded."""
    throughput, head = _throughput(device), _head(device)
    # Half an hour on a device should produce some rows of every kind.
    return [
        *_tests(device),
        _compile_table(),
        *throughput[:1],
        *head[:4],
        *throughput[1:],
        *head[4:],
        *_topsis(device),
        *_small_model(device),
        _training(device),
    ]


def _tests(device: str) -> list[Step]:
    # One step per file of GPU tests: none of them takes nine minutes, but together they may.
    commit = circumstances()["commit"]
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.gpu" not in text:
            continue
        name = path.relative_to(ROOT).as_posix()
        known = not commit.endswith("+changes") and commit != "none"
        recorded = known and is_recorded("gpu_tests", device=device, file=name, commit=commit, outcome="passed")
        lacking = missing_imports(text)
        command = ("-P", "-m", "pytest", "-q", "-m", "gpu", name)
        found.append(
            Step(
                f"GPU tests: {name}",
                command,
                90.0,
                "" if recorded else "outcome at this commit",
                f"not installed: {', '.join(lacking)}" if lacking else "",
                tests=name,
            )
        )
    return found


def _training(device: str) -> Step:
    """Training and generation at Llama-2-7B's shape; needs the extra ``train``."""
    lacking = [name for name in ("trl", "peft", "pydantic", "yaml", "datasets") if find_spec(name) is None]
    return Step(
        "training: llama-2-7b",
        ("bench/training.py", "--shape", "llama-2-7b", "--if-missing"),
        480.0,
        "" if is_recorded("training", device=device, shape="llama-2-7b", phase="generate") else "rows",
        f"not installed: {', '.join(lacking)}" if lacking else "",
    )


def missing_imports(source: str) -> list[str]:
    """Packages that a module imports at its top and that are not installed (except ours and modules of bench/)."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    neighbours = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"donod_fast"}
    return sorted(name for name in names - neighbours if find_spec(name) is None)


def _compile_table() -> Step:
    """The compiler's report for the device's architecture, from the installed Triton."""
    architectures = _without_the_package("kernels/triton_backend/architectures.py")
    architecture = architectures.architecture_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    spec = find_spec("triton")
    version = metadata.version("triton") if spec else "none"
    recorded = is_recorded("compiled", device="", architecture=architecture, triton=version)
    path = RESULTS / f"compiled_{architecture}_triton_{version}.csv"
    command = ("-P", "-m", "donod_fast.kernels.triton_backend.compiled", "--architecture", architecture, "--csv",
               f"bench/results/{path.name}")  # fmt: skip
    missing = "" if recorded or path.exists() else path.name
    obstacle = "the device's architecture is not in the table" if architecture == architectures.CONSERVATIVE else ""
    return Step(
        f"compile table: {architecture}", command, 120.0, missing, obstacle if spec else "not installed: triton"
    )


def _without_the_package(path: str) -> Any:
    """A module that imports nothing of donod_fast, before the tree with the package exists."""
    spec = spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _throughput(device: str) -> list[Step]:
    """``donod-fast bench`` at the large shapes, one step per shape and length profile."""
    lacking = [name for name in ("transformers", "tokenizers") if find_spec(name) is None]
    obstacle = f"not installed: {', '.join(lacking)}" if lacking else ""
    found = []
    for lengths in PROFILES:
        for shape in (shape for shape in models.SHAPES.values() if not shape.small):
            rows = recorded_rows("throughput", device=device, shape=shape.name, lengths=lengths, dtype="bfloat16")
            timed = {table.program_of(row["row"]): row["median_ms"] for row in rows}
            # The essential rows need a time; any other row may record the reason why it has none.
            needed = (table.RATE, table.PAPER, table.TRUNK, table.OURS)
            wanted = (name for name in table.ROWS if name != table.TRUNK_TOGETHER)  # this row is for CPUs
            missing = [name for name in wanted if name not in timed or (name in needed and not timed[name])]
            command = ("-P", "-m", "donod_fast.benchmark", "--shape", shape.name, "--lengths", lengths, "--out",
                       "bench/results", "--seconds", "200", "--loop-seconds", "8")  # fmt: skip
            # Compiling twice and compiling the kernels take longer than the timed part.
            found.append(Step(f"throughput: {shape.name}, {lengths}", command, 480.0, _few(missing), obstacle))
    return found


def _head(device: str) -> list[Step]:
    found = []
    large = [shape for shape in SHAPES.values() if not shape.small]
    for tokens in large[0].tokens:
        for profile in large[0].profiles:
            for shape in large:
                case = case_columns(shape, LENGTHS[profile], tokens, "bfloat16")
                missing = missing_rows(case, device)
                command = ("bench/head.py", "--shape", shape.name, "--tokens", str(tokens), "--lengths", profile,
                           "--if-missing")  # fmt: skip
                # Start, compilation and truth; nine runs of every program: ours, the peers and the floor some ten
                # products at 500 TFLOP/s, the closed forms some six in float32 at 40.
                product = 2e-12 * tokens * shape.vocab * shape.dim
                seconds = 60 + 9 * (10 * product / 500 + 6 * product / 40)
                found.append(
                    Step(f"head phase: {shape.name}, {tokens} tokens, {profile}", command, seconds, _few(missing))
                )
    return found


def _topsis(device: str) -> list[Step]:
    missing = [str(samples) for samples in (1_000_000, 10_000_000)
               if not is_recorded("topsis", device=device, row="triton", samples=samples)]  # fmt: skip
    return [Step("topsis", ("bench/topsis.py", "--if-missing"), 40.0, _few(missing))]


def _small_model(device: str) -> list[Step]:
    """The trained small model on real rows: against the paper's loop, and what each further criterion costs."""
    places = (ROOT.parent / "shared", ROOT / "shared", ROOT / "build" / "carry" / "shared")  # first_lease.py --prepare
    shared = next((place for place in places if place.is_dir()), None)
    lacking = [name for name in ("transformers", "pyarrow", "filelock") if find_spec(name) is None]
    obstacle = f"not installed: {', '.join(lacking)}" if lacking else ""
    at = "" if shared is None else os.path.relpath(shared, ROOT)
    rows = f"{at}/data/gsm8k/test.jsonl"
    model = ("--model", f"{at}/models/tiny-instruct", "--data", rows)
    if shared is None:
        obstacle = "../shared with the model and the data is missing"

    def step(name: str, seconds: float, recorded: bool, *command: str) -> Step:
        return Step(name, command, seconds, "" if recorded else "rows", obstacle)

    found = []
    for head in (None, 32000):
        name = "end to end: " + (f"tiny-instruct with {head} pieces" if head else "tiny-instruct")
        columns: dict[str, Any] = {"update": "adamw", "vocab": head or 4096, "dim": 256}
        recorded = is_recorded("end_to_end", device=device, **columns)
        more = ("--head", str(head)) if head else ()
        found.append(step(name, 120.0, recorded, "bench/end_to_end.py", *model, *more))
    recorded = is_recorded("criteria", device=device, signal="all of these", update="adamw")
    command = ("bench/criteria.py", *model, "--reference", rows)
    return [*found, step("criteria: tiny-instruct", 120.0, recorded, *command)]


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} rows"


def _record_tests(file: str, last_line: str, failure: str) -> None:
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", last_line)}
    row = {
        "file": file,
        "outcome": failure or "passed",
        **{k: counts.get(k, 0) for k in ("passed", "failed", "skipped")},
    }
    write_rows("gpu_tests", [row])


class _Alarm:
    """Kills a process and its children when its time is up."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.process, self.rang = process, False
        self._timer = threading.Timer(max(seconds, 1.0), self._ring)

    def _ring(self) -> None:
        self.rang = True
        os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> _Alarm:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


if __name__ == "__main__":
    sys.exit(main())
