"""(f) Nsight Compute's counters of one launch of every kernel, with the clocks as they are; or why there are none."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lease.launches import backend_modules
from lease.rows import Setting

_SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "SchedulerStats", "WarpStateStats", "MemoryWorkloadAnalysis")
# What goes into the table; the whole report stays in the log.
_METRICS = (
    "Duration",
    "Compute (SM) Throughput",
    "Memory Throughput",
    "DRAM Throughput",
    "L2 Cache Throughput",
    "Registers Per Thread",
    "Achieved Occupancy",
    "Issue Slots Busy",
    "Executed Ipc Active",
)


def run(setting: Setting) -> None:
    """Profile one call of each update (in this file's ``target``), and add the counters of each kernel."""
    ncu = shutil.which("ncu")
    if ncu is None:
        setting.add("ncu", "ncu", note="not installed: ncu is not on the PATH")
        return
    report = setting.file.with_name("ncu.csv")
    sections = [part for name in _SECTIONS for part in ("--section", name)]
    # The second invocation of each of our kernels (torch has others): the first one compiles and finds the caches cold.
    program = Path(__file__).resolve().parents[1] / "first_lease.py"
    command = [ncu, "--clock-control", "none", "--cache-control", "none", "--csv", "--page", "details", *sections,
               "--kernel-id", f"::regex:^({'|'.join(kernel_names())})$:2", "--log-file", str(report),
               sys.executable, str(program), "--step", "profiled", "--file", str(setting.file)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=setting.seconds - 5, check=False)
    print(done.stdout[-4000:], done.stderr[-4000:])
    if done.returncode or not report.exists():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("==ERROR==")]
        setting.add("ncu", "ncu", note=(lines or [f"exit status {done.returncode}"])[0][:250])
    if report.exists():
        for kernel, metric, unit, value in read_report(report.read_text(encoding="utf-8").splitlines()):
            setting.add(kernel, metric, value=value, unit=unit)


def kernel_names() -> list[str]:
    """Names of the kernels of the Triton backend."""
    found = {name for module in backend_modules() for name in vars(module) if name.endswith("_kernel")}
    return sorted(found)


def read_report(lines: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Kernel, metric, unit and value of ncu's details page in CSV; lines before the table are left out."""
    table = [line for line in lines if line.startswith('"')]
    return [
        (row["Kernel Name"], row["Metric Name"], row["Metric Unit"], row["Metric Value"])
        for row in csv.DictReader(table)
        if row["Metric Name"] in _METRICS
    ]


def target(setting: Setting) -> None:
    """The program that is profiled: two runs of an AdamW and of an SGD call at Llama-2's output layer."""
    from donod_fast.kernels.triton_backend.run import head_sums
    from lease.calls import Inputs, Kind, configs_of, shapes_of

    shape = shapes_of(setting, "llama-2-7b")[0]
    inputs = Inputs(shape, setting)
    for update in ("adamw", "sgd"):
        call = inputs.call(Kind(shape, update, 5 if setting.dry else 150))
        for _ in range(2):
            head_sums(call, configs_of(call))
