"""What every benchmark shares: interleaved medians, and CSV rows that say how they were made."""

from __future__ import annotations

import csv
import os
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
# In place of a device's name: any GPU.
ANY_ACCELERATOR = "any accelerator"


class HeaderError(RuntimeError):
    """Rows have other columns than the file that they are for."""


def interleaved(
    programs: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1, seconds: float | None = None
) -> dict[str, list[float]]:
    """Seconds of each program over ``rounds``, taken in turns so that a slow minute hits all alike.

    After ``seconds`` no further round is begun: every program then has the same, smaller number of times.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    begin = time.perf_counter()
    for turn in range(warm_up + rounds):
        if seconds is not None and turn > warm_up and time.perf_counter() - begin > seconds:
            break
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


def device_name(kind: str | None = None) -> str:
    """The accelerator's name, or the processor's where there is none or ``kind`` is ``"cpu"``."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() and kind != "cpu" else _processor()


def circumstances(kind: str | None = None) -> dict[str, str]:
    """Date, commit, device, versions and the command line of this run.

    Where there is no repository the commit is that of the environment variable ``DONOD_FAST_COMMIT``.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    commit = commit or os.environ.get("DONOD_FAST_COMMIT", "none")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit + ("+changes" if dirty else ""),
        "device": device_name(kind),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": shlex.join(["python", *sys.argv]),
    }


def write_rows(name: str, rows: list[dict[str, Any]], *, kind: str | None = None) -> Path:
    """Append rows, each with the circumstances, to ``results/NAME.csv``.

    Raises:
        HeaderError: the file is there with other columns; nothing is written.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    about = circumstances(kind)
    rows = [{**row, **about} for row in rows]
    header = list(rows[0])
    found = _header(path)
    if found and found != header:
        lacking = [column for column in header if column not in found]
        unknown = [column for column in found if column not in header]
        raise HeaderError(
            f"results/{path.name} has other columns than these rows (not in the file: {lacking}, only in the file: "
            f"{unknown}, else in another order); rows of a new kind go to a file of their own"
        )
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=header, lineterminator="\n")
        if not found:
            writer.writeheader()
        writer.writerows(rows)
    return path


def recorded_rows(name: str, *, device: str | None = None, **values: Any) -> list[dict[str, str]]:
    """Rows of ``results/NAME.csv`` with these values.

    Those measured on ``device``: by default this one, ``ANY_ACCELERATOR``, or "" for rows whatever they say of it.
    """
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    wanted = {key: str(value) for key, value in values.items()}
    if device is None:
        device = device_name()
    if device not in ("", ANY_ACCELERATOR):
        wanted["device"] = device
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row.get(key) == value for key, value in wanted.items())]
    if device == ANY_ACCELERATOR:
        rows = [row for row in rows if row["device"].startswith(("NVIDIA", "AMD Instinct"))]
    return rows


def is_recorded(name: str, *, device: str | None = None, **values: Any) -> bool:
    """Whether there is such a row."""
    return bool(recorded_rows(name, device=device, **values))


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The rows as an aligned table."""
    cells = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
