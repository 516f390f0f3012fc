"""Time programs in turns, and measure their peak memory."""

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
    """Seconds of each program over ``rounds``, run in turns so that a slow minute affects all of them equally.

    After ``seconds`` no further round is started: every program then has the same, smaller number of times. ``before``
    is called with a program's name before each of its turns, untimed. If ``failed`` is given, it is called for a
    program that raises, which gets no further turns; without it the error propagates.
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
    """Reset the measurement of peak memory; returns the current use, or 0 if the system does not report it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc: return memory freed earlier
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # Linux only; 5 resets the peak of the resident set
        (_PROCESS / "clear_refs").write_text("5")
    return _resident("VmRSS") or 0


def peak_bytes(device: torch.device) -> int | None:
    """Peak memory in bytes since ``forget_peak``; None if the system does not report it.

    On CUDA the memory of tensors, on a CPU the resident set of this process (without worker processes).
    """
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else _resident("VmHWM")


def _resident(entry: str) -> int | None:
    try:
        found = re.search(rf"{entry}:\s+(\d+) kB", (_PROCESS / "status").read_text())
    except OSError:
        return None
    return int(found[1]) << 10 if found else None
