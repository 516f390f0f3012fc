"""Bytes that a call allocates, counted by the events of the allocator."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from head_cases import Case

KIB = 1 << 10


def allocations(call: Callable[[], object]) -> tuple[int, int]:
    """(most bytes held at once, largest single allocation) on the CPU during the call.

    In a thread of its own: a buffer that an earlier call of this thread kept would not be counted.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_allocations, call).result()


def _allocations(call: Callable[[], object]) -> tuple[int, int]:
    torch.set_num_threads(1)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        kept = call()
    del kept
    results = profile.profiler.kineto_results  # type: ignore[union-attr]
    held = peak = largest = 0
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak, largest = max(peak, held), max(largest, event.nbytes())
    return peak, largest


def slack(case: Case) -> int:
    """Some thirty 8-byte numbers per token (labels, row numbers, statistics) and small change."""
    return 256 * len(case.labels) + 64 * KIB
