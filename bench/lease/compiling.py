"""(b) Compile what the later steps launch, in 16 processes: each runs a call, which fills Triton's cache."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from lease.calls import Inputs, Kind, configs_of, kinds
from lease.rows import Setting, digits

_PROCESSES = 16


def run(setting: Setting) -> None:
    """Add a row for each call, with the seconds of its first run."""
    todo = [(setting, kind) for kind in kinds(setting)]
    todo += [(setting, number) for number in range(1 if setting.dry else _truth_cases())]
    begin = time.perf_counter()
    context = get_context("spawn")  # a process that has used CUDA cannot be forked
    processes = 1 if setting.dry else min(_PROCESSES, os.cpu_count() or 1, len(todo))
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(first_run, *task): task[1] for task in todo}
        for future in as_completed(futures):
            task = futures[future]
            name = task.name if isinstance(task, Kind) else f"truth case {task}"
            found = setting.attempt("first run", name, future.result)
            if found is not None:
                setting.add("first run", name, value=digits(found), unit="s")
    taken = digits(time.perf_counter() - begin)
    setting.add("first run", "all", calls=len(todo), value=taken, unit="s", note=f"{processes} processes")


def _truth_cases() -> int:
    from lease.truth import CASES

    return len(CASES)


def first_run(setting: Setting, task: Kind | int) -> float:
    """Seconds of the first run of a call in this process (compilation, unless it is cached)."""
    if isinstance(task, Kind):
        from donod_fast.kernels.triton_backend.reduce import squared_norm
        from donod_fast.kernels.triton_backend.run import head_sums

        inputs = Inputs(task.shape, setting)
        call = inputs.call(task, samples=2)
        begin = time.perf_counter()
        squared_norm(call.weight)
        head_sums(call, configs_of(call))
    else:
        from lease.truth import CASES, score

        begin = time.perf_counter()
        score(setting, CASES[task])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin
