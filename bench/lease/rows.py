"""Rows of a step, written one by one so that they survive the end of the process; timing on either kind of device."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

TABLE = "first_lease"
COLUMNS = ("step", "case", "name", "calls", "median_ms", "predicted_ms", "value", "unit", "note")


@dataclass(frozen=True, slots=True)
class Setting:
    """What every step gets.

    Attributes:
        step: its name.
        file: JSON lines of rows, appended to.
        dry: tiny shapes and few rounds, on a CPU under Triton's interpreter.
        seconds: its limit; measurements that repeat end well before.
    """

    step: str
    file: Path
    dry: bool
    seconds: float

    @property
    def device(self) -> torch.device:
        """The accelerator, or the CPU in a dry run."""
        return torch.device("cpu" if self.dry else "cuda")

    def add(self, case: str, name: str, **values: Any) -> None:
        """Append a row; the columns that are not given stay empty."""
        row = {**dict.fromkeys(COLUMNS, ""), "step": self.step, "case": case, "name": name, **values}
        assert set(row) == set(COLUMNS), set(row) - set(COLUMNS)
        shown = {key: value for key, value in row.items() if value != ""}
        print("  ".join(f"{key}={value}" for key, value in shown.items()), flush=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            os.fsync(lines.fileno())

    def attempt(self, case: str, name: str, run: Callable[[], Any]) -> Any:
        """Return what ``run`` returns; if it raises, add a row with the reason and return None."""
        try:
            return run()
        except Exception as error:  # the other cases of the step follow
            self.add(case, name, note=f"{type(error).__name__}: {error}".splitlines()[0][:250])
            return None


def median_ms(run: Callable[[], Any], *, rounds: int = 15, seconds: float = 1.0) -> float:
    """Median milliseconds of ``run`` after two warm-up runs: CUDA events on a device, a clock on a CPU.

    All rounds are queued before the first is awaited, so that the host is not part of the time.
    """
    cuda = torch.cuda.is_available()
    begin = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    once = time.perf_counter() - begin
    rounds = max(3, min(rounds, round(seconds / max(once, 1e-6))))
    if not cuda:
        return 1e3 * once  # of a dry run
    run()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(first.elapsed_time(second) for first, second in pairwise(marks))


def digits(value: float) -> float:
    """Four significant digits, for the table."""
    return float(f"{value:.4g}")
