"""Rows of results/: append them with the circumstances of the measurement, and look up recorded rows.

Timing, circumstances and printing come from the package (``donod_fast.benchmark``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from donod_fast.benchmark import record
from donod_fast.benchmark.record import HeaderError, aligned, append_rows, device_name, read_rows
from donod_fast.benchmark.timing import interleaved, summary

RESULTS = Path(__file__).parent / "results"
# Instead of a device's name: any GPU.
ANY_ACCELERATOR = "any accelerator"


def circumstances(kind: str | None = None) -> dict[str, str]:
    """Date, commit of this repository, device, versions and the command line of this run."""
    return record.circumstances(kind, source=Path(__file__).resolve())


def write_rows(name: str, rows: list[dict[str, Any]], *, kind: str | None = None) -> Path:
    """Append rows, each with the circumstances, to ``results/NAME.csv``.

    Raises:
        HeaderError: the file exists with different columns; nothing is written.
    """
    path = RESULTS / f"{name}.csv"
    about = circumstances(kind)
    append_rows(path, [{**row, **about} for row in rows])
    return path


def recorded_rows(name: str, *, device: str | None = None, **values: Any) -> list[dict[str, str]]:
    """Rows of ``results/NAME.csv`` with these values.

    ``device``: this device by default, ``ANY_ACCELERATOR``, or "" for rows of any device.
    """
    wanted = {key: str(value) for key, value in values.items()}
    if device is None:
        device = device_name()
    if device not in ("", ANY_ACCELERATOR):
        wanted["device"] = device
    found = read_rows(RESULTS / f"{name}.csv")
    rows = [row for row in found if all(row.get(key) == value for key, value in wanted.items())]
    if device == ANY_ACCELERATOR:
        rows = [row for row in rows if row["device"].startswith(("NVIDIA", "AMD Instinct"))]
    return rows


def is_recorded(name: str, *, device: str | None = None, **values: Any) -> bool:
    """Whether such a row is recorded."""
    return bool(recorded_rows(name, device=device, **values))


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print the rows as an aligned table."""
    print(aligned(rows))


__all__ = ["ANY_ACCELERATOR", "RESULTS", "HeaderError", "circumstances", "device_name", "interleaved", "is_recorded",
           "print_rows", "recorded_rows", "summary", "write_rows"]  # fmt: skip
