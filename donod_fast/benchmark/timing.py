"""Programs timed in turns, and the memory that each held at its peak."""

from __future__ import annotations

import contextlib
import ctypes
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

_PROCESS = Path("/proc/self")


def interleaved(
    programs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warm_up: int = 1,
    seconds: float | None = None,
    before: Callable[[str], object] = lambda name: None,
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each program over ``rounds``, taken in turns so that a slow minute hits all alike.

    After ``seconds`` no further round is begun: every program then has the same, smaller number of times. ``before`` is
    called with a program's name ahead of each of its turns, untimed. With ``failed`` a program that raises is handed to
    it and takes no further turns; without it the error goes on.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    left = dict(programs)
    begin = time.perf_counter()
    for turn in range(warm_up + rounds):
        if seconds is not None and turn > warm_up and time.perf_counter() - begin > seconds:
            break
        for name, program in list(left.items()):
            before(name)
            try:
                start = time.perf_counter()
                program()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                taken = time.perf_counter() - start
            except Exception as error:
                if failed is None:
                    raise
                failed(name, error)
                del left[name], times[name]
                continue
            if turn >= warm_up:
                times[name].append(taken)
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


def forget_peak(device: torch.device) -> int:
    """Begin to measure the peak of memory anew; what is held now, 0 where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc: give back what earlier programs freed
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # Linux only; 5 resets the peak of the resident set
        (_PROCESS / "clear_refs").write_text("5")
    return _resident("VmRSS") or 0


def peak_bytes(device: torch.device) -> int | None:
    """Most memory held since ``forget_peak``; None where the system does not say.

    On CUDA what tensors held, on a CPU the resident set of this process (not of worker processes).
    """
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else _resident("VmHWM")


def _resident(entry: str) -> int | None:
    try:
        found = re.search(rf"{entry}:\s+(\d+) kB", (_PROCESS / "status").read_text())
    except OSError:
        return None
    return int(found[1]) << 10 if found else None
