"""Result rows: the circumstances of a measurement, appending to a CSV file, and printing as a table."""

from __future__ import annotations

import csv
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from donod_fast.confidential import without_secrets
from donod_fast.errors import DonodError, StoreError


class HeaderError(StoreError):
    """The rows' columns differ from the file's columns."""


def device_name(kind: str | None = None) -> str:
    """The accelerator's name, or the processor's if there is none or ``kind`` is ``"cpu"``."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() and kind != "cpu" else _processor()


def circumstances(kind: str | None = None, *, source: Path | None = None) -> dict[str, str]:
    """Date, commit, device, versions and the command line of this run.

    The commit is that of the repository that tracks ``source`` (by default this package); without a repository it is
    the value of the environment variable ``DONOD_FAST_COMMIT``, else ``none``. Uncommitted changes are marked.
    """
    source = source or Path(__file__).resolve().parents[1] / "__init__.py"
    commit = dirty = ""
    if _git(source, "ls-files", "--error-unmatch", source.name):  # the package may lie in another repository
        commit = _git(source, "rev-parse", "--short", "HEAD")
        dirty = _git(source, "status", "--porcelain", "-uno")
    commit = commit or os.environ.get("DONOD_FAST_COMMIT", "none")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit + ("+changes" if dirty else ""),
        "device": device_name(kind),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": command_line(),
    }


def command_line() -> str:
    """The current command line, without the folder of its program."""
    program, *arguments = sys.argv
    path = Path(program)
    if path.name == "__main__.py":
        start = ["python", "-m", f"donod_fast.{path.parent.name}"]
    elif path.suffix == ".py":
        start = ["python", path.name if path.is_absolute() else program]
    else:
        start = [path.name]
    return shlex.join([*start, *arguments])


def append_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a CSV file, which is created if it does not exist.

    Raises:
        HeaderError: the file exists with different columns; nothing is written.
        StoreError: the file cannot be written.
    """
    header = list(rows[0])
    found = _header(path)
    if found and found != header:
        lacking = [column for column in header if column not in found]
        unknown = [column for column in found if column not in header]
        raise HeaderError(
            f"{path.name} has different columns (not in the file: {lacking}, only in the file: {unknown}, "
            "or a different order); write rows of a new kind to a new file"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=header, lineterminator="\n")
            if not found:
                writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; empty if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def aligned(rows: Sequence[dict[str, Any]]) -> str:
    """Print the rows as an aligned table, with numbers to four digits."""
    cells = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(line.rstrip() for line in lines)


def short_error(error: BaseException) -> str:
    """An error on one line, without paths of this machine."""
    first = re.sub(r"(/[^/ ]+){2,}", "…", (without_secrets(str(error)).strip().splitlines() or [""])[0])
    return (first if isinstance(error, DonodError) else f"{type(error).__name__}: {first}")[:250]


def _git(source: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(source.parent), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip()


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


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
