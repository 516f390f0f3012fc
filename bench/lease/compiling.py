"""(b) Compile what the later steps launch, in 16 processes: each runs a call, which fills Triton's cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from donod_fast.kernels.triton_backend.reduce import squared_norm
from donod_fast.kernels.triton_backend.run import head_sums
from lease.calls import Inputs, Kind, configs_of, kinds
from lease.launches import VARIANTS, varied
from lease.rows import Setting, digits
from lease.truth import CASES, TruthCase, score

_PROCESSES = 16


@dataclass(frozen=True, slots=True)
class Task:
    """A call to run once: of step (d), with a variant's configs or the shipped ones, or a case of step (c)."""

    name: str
    kind: Kind | None = None
    variant: str = "as shipped"
    case: TruthCase | None = None


def tasks(setting: Setting) -> list[Task]:
    """Everything that the later steps launch; the most important first, in case that time runs out."""
    found = [Task(kind.name, kind) for kind in kinds(setting)]
    if setting.dry:
        return found[:1]
    found += [Task(f"truth: {case.name}", case=case) for case in CASES]
    for kind in kinds(setting):
        if kind.update == "adamw" and kind.shape.softcap is None:
            found += [Task(f"{kind.name}, {name}", kind, name) for name in VARIANTS if name != "as shipped"]
    return found


def run(setting: Setting) -> None:
    """Add a row for each call, with the seconds of its first run."""
    todo = tasks(setting)
    begin = time.perf_counter()
    if setting.dry:
        for task in todo:
            _report(setting, task, lambda task=task: first_run(setting, task))
        return
    context = get_context("spawn")  # a process that has used CUDA cannot be forked
    processes = min(_PROCESSES, os.cpu_count() or 1, len(todo))
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(first_run, setting, task): task for task in todo}
        for future in as_completed(futures):
            _report(setting, futures[future], future.result)
    taken = digits(time.perf_counter() - begin)
    setting.add("first run", "all", calls=len(todo), value=taken, unit="s", note=f"{processes} processes")


def _report(setting: Setting, task: Task, result: Callable[[], float]) -> None:
    found = setting.attempt("first run", task.name, result)
    if found is not None:
        setting.add("first run", task.name, value=digits(found), unit="s")


def first_run(setting: Setting, task: Task) -> float:
    """Seconds of the first run of a call in this process (compilation, unless it is cached)."""
    if task.case is not None:
        begin = time.perf_counter()
        score(setting, task.case)
    else:
        assert task.kind is not None
        call = Inputs(task.kind.shape, setting).call(task.kind, samples=2)
        begin = time.perf_counter()
        squared_norm(call.weight)
        with varied(task.variant, configs_of(call)) as configs:
            head_sums(call, configs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin
