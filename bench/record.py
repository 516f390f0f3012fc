"""What every benchmark shares: interleaved medians, and CSV rows that say how they were made."""

from __future__ import annotations

import csv
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(programs: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each program over ``rounds``, taken in turns so that a slow minute hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(warm_up + rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return times


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and the 20th and 80th percentile, in milliseconds."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {
        "median_ms": 1e3 * statistics.median(ordered),
        "p20_ms": 1e3 * ordered[round(0.2 * last)],
        "p80_ms": 1e3 * ordered[round(0.8 * last)],
    }


def circumstances() -> dict[str, str]:
    """Date, commit, device, versions and the command line of this run."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": (commit or "none") + ("+changes" if dirty else ""),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": shlex.join(["python", *sys.argv]),
    }


def write_rows(name: str, rows: list[dict[str, Any]]) -> Path:
    """Append rows, each with the circumstances, to ``results/NAME.csv``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    about = circumstances()
    rows = [{**row, **about} for row in rows]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
    return path


def is_recorded(name: str, **values: Any) -> bool:
    """Whether ``results/NAME.csv`` has a row with these values, measured on this device."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return False
    wanted = {"device": circumstances()["device"], **{key: str(value) for key, value in values.items()}}
    with path.open(newline="") as file:
        return any(all(row.get(key) == value for key, value in wanted.items()) for row in csv.DictReader(file))


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The rows as an aligned table."""
    cells = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
