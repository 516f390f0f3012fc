"""Work of a study in several one-thread processes, which end with the process that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as connection_wait
from typing import Any, TypeVar

from donod_fast.errors import WorkerError

_Place = TypeVar("_Place")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_processes(
    make: Callable[[], _Place], work: Callable[[_Place, _Item], _Result], items: Sequence[_Item], jobs: int
) -> Iterator[_Result]:
    """Yield ``work(place, item)`` for each item when it is finished: in order for one job, else as they finish.

    One job is done in this process, several in spawned processes of one thread each. So a program that uses several
    must be importable without running (``if __name__ == "__main__"``), and all arguments and results can be pickled.

    Args:
        make: makes the place of work, such as a loaded model; called once in each process, before its first item.
        work: does an item.
        items: the items, started in this order.
        jobs: number of processes.

    Raises:
        WorkerError: a process was killed; what it finished is kept, where ``work`` keeps it.
    """
    if jobs <= 1 or len(items) <= 1:
        place = make()
        for item in items:
            yield work(place, item)
        return
    # Spawned, not forked: a forked copy of a process with threads (torch's) may hang.
    with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), _begin, (make,)) as pool:
        waiting: set[Future[_Result]] = {pool.submit(_one, work, item) for item in items}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a process of the study was killed or ran out of memory; finished cells are cached: "
                "rerun the same command, with fewer --jobs if memory was short"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


_here: dict[str, Any] = {}


def _begin(make: Callable[[], Any]) -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _here["make"] = make


def _end_with_parent() -> None:
    """End this process with its parent; otherwise it would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        connection_wait([parent.sentinel])
        os._exit(1)


def _one(work: Callable[[Any, Any], Any], item: Any) -> Any:
    if "place" not in _here:  # not in _begin, because the pool would hide its errors
        _here["place"] = _here["make"]()
    return work(_here["place"], item)


__all__ = ["in_processes"]
