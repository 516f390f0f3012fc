"""The table: names of its rows, and conversion of measurements to columns. Plain Python, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.benchmark.timing import summary

RATE = "matrix products"
PAPER = "paper's loop"
PADDED = "padded loop, loss only"
TRUNK = "trunk alone"
TRUNK_TOGETHER = "trunk alone, side by side"
OURS, COMPILED, FLOAT8 = "ours", "ours, compiled", "ours, float8"
# Every row, in the table's order; the names of our rows end with one of the spans.
ROWS = (RATE, PAPER, PADDED, TRUNK, TRUNK_TOGETHER, OURS, COMPILED, FLOAT8)
FILE_TO_FOLDER, TOKENS_TO_ROWS = "file to folder", "tokens to rows"

CSV_NAME = "throughput.csv"
SHOWN = {
    "row": "row",
    "samples_per_s": "samples/s",
    "tokens_per_s": "tokens/s",
    "tflops": "TFLOP/s",
    "mfu": "MFU",
    "packing_efficiency": "packing",
    "peak_mib": "peak MiB",
    "device_idle": "idle",
    "head_share": "head",
    "speed_over_paper_loop": "× paper",
    "time_over_bare_trunk": "time/trunk",
    "note": "note",
}
"""Printed columns and their headings."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurement of one row.

    Attributes:
        seconds: times of its turns; empty if it could not run.
        samples, tokens: numbers that one turn processes.
        needed: number of tokens that must be computed (``batching.used_tokens``).
        slots: positions that the decoder computes in a turn, including padding.
        operations: model FLOPs of a turn (see ``work.py``); 0 if they are not counted.
        peak_bytes: peak memory of the last turn: the weights, plus the increase over the memory used before.
        device_idle, head_share: shares of the time of a separate turn in which the stages were timed.
        note: what the numbers do not include, or why there are none.
    """

    name: str
    seconds: tuple[float, ...] = ()
    samples: int = 0
    tokens: int = 0
    needed: int = 0
    slots: int = 0
    operations: int = 0
    peak_bytes: int | None = None
    device_idle: float | None = None
    head_share: float | None = None
    note: str = ""

    @property
    def program(self) -> str:
        """The name in :data:`ROWS`, without the span."""
        return program_of(self.name)


def spanned(program: str, span: str) -> str:
    """The name of one of our rows, with its span."""
    return f"{program}: {span}"


def program_of(row: str) -> str:
    """The name in :data:`ROWS` of a row."""
    return row.partition(":")[0]


def table_rows(about: dict[str, Any], measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Rows of one table. Speeds, MFU and ratios are computed from medians; ratios are per token."""
    by_program = {found.program: found for found in measured if found.seconds}
    nothing = Measured("")
    products, loop, floor = (by_program.get(name, nothing) for name in (RATE, PAPER, TRUNK))
    rate = _per_second(products, products.operations)
    paper, trunk = (_per_second(found, found.tokens) for found in (loop, floor))
    return [_row(about, found, rate, paper, trunk) for found in measured]


def _row(
    about: dict[str, Any], found: Measured, rate: float | None, paper: float | None, trunk: float | None
) -> dict[str, Any]:
    times = summary(list(found.seconds)) if found.seconds else {}
    speed, done = _per_second(found, found.tokens), _per_second(found, found.operations)
    return {
        "row": found.name,
        **about,
        "samples_timed": found.samples or "",
        "tokens_timed": found.tokens or "",
        "rounds": len(found.seconds) or "",
        **{key: _rounded(times.get(key)) for key in ("median_ms", "p20_ms", "p80_ms")},
        "samples_per_s": _rounded(_per_second(found, found.samples)),
        "tokens_per_s": _rounded(speed),
        "tflops": _rounded(_ratio(done, 1e12)),
        "mfu": _rounded(None if found.program == RATE else _ratio(done, rate)),
        "packing_efficiency": _rounded(_ratio(found.needed, found.slots)),
        "peak_mib": _rounded(_ratio(found.peak_bytes, 2**20)),
        "device_idle": _rounded(found.device_idle),
        "head_share": _rounded(found.head_share),
        "speed_over_paper_loop": _rounded(_ratio(speed, paper)),
        "time_over_bare_trunk": _rounded(_ratio(trunk, speed)),
        "note": found.note,
    }


def _per_second(found: Measured, amount: float) -> float | None:
    """An amount per second of the median turn; None if the amount is 0."""
    if not found.seconds:
        return None
    return _ratio(1e3 * amount, summary(list(found.seconds))["median_ms"])


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part and whole else None


def _rounded(value: float | None) -> float | str:
    """A number for the file, to six digits; "" for None."""
    return "" if value is None else float(f"{value:.6g}")
