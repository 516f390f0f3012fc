"""Order of batches: in parallel on a CPU, launched ahead on an accelerator.

On a CPU, several threads each run a batch, instead of one thread that splits every operation over all cores. The
operations of a scoring batch are short: splitting each makes the cores wait for each other about ten thousand times per
second, while a batch per core does not.

An accelerator processes a queue and does not wait if the next batch is in the queue before the last one is done. So the
results of a batch are read only after two more have been launched, and the host prepares batches meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_In = TypeVar("_In")
_Made = TypeVar("_Made")
_Out = TypeVar("_Out")

# Each thread holds the activations of a batch; more threads gain little, since the cores share memory bandwidth.
_MOST_WORKERS = 4

_MADE_AHEAD = 2
_LAUNCHED_AHEAD = 2


def worker_count(device: torch.device) -> int:
    """Number of batches to score in parallel: one on an accelerator, up to four on a CPU."""
    return max(1, min(torch.get_num_threads(), _MOST_WORKERS)) if device.type == "cpu" else 1


def in_order(
    work: Callable[[_In], _Out], items: Iterable[_In], workers: int
) -> Generator[tuple[_In, _Out], None, None]:
    """Yield each item with ``work(item)``, in the items' order; ``workers`` items are in progress at a time.

    Meanwhile torch's threads are divided among the workers. Closing the generator early waits for items in
    progress. With one worker all work is done in the caller's thread, on request.
    """
    if workers == 1:
        for item in items:
            yield item, work(item)
        return
    coming: deque[tuple[_In, Future[_Out]]] = deque()
    with threads_each(torch.get_num_threads() // workers), ThreadPoolExecutor(workers, "score") as pool:
        for item in items:
            coming.append((item, pool.submit(work, item)))
            if len(coming) > workers:
                first, future = coming.popleft()
                yield first, future.result()
        for last, future in coming:
            yield last, future.result()


def launched_ahead(
    make: Callable[[_In], _Made],
    launch: Callable[[_In, _Made], Callable[[], _Out] | None],
    items: Iterable[_In],
    *,
    start: Callable[[], object] | None = None,
) -> Generator[tuple[_In, _Out | None], None, None]:
    """Yield each item with its result, in the items' order; some items are launched ahead.

    Args:
        make: prepares an item; runs ahead in a separate thread.
        launch: launches a prepared item in the caller's thread and returns a function that waits for the result, or
            None if it failed. Then the items launched before are yielded, this item with None, and no further item.
        items: the items.
        start: called once at the start of the thread of ``make``.
    """
    making: deque[tuple[_In, Future[_Made]]] = deque()
    flying: deque[tuple[_In, Callable[[], _Out]]] = deque()
    coming = iter(items)
    pool = ThreadPoolExecutor(1, "collate", initializer=start)
    try:
        while True:
            while len(making) < _MADE_AHEAD and (item := next(coming, None)) is not None:
                making.append((item, pool.submit(make, item)))
            if not making:
                break
            item, future = making.popleft()
            result = launch(item, future.result())
            if result is None:
                yield from ((earlier, wait()) for earlier, wait in flying)
                yield item, None
                return
            flying.append((item, result))
            if len(flying) > _LAUNCHED_AHEAD:
                earlier, wait = flying.popleft()
                yield earlier, wait()
        yield from ((earlier, wait()) for earlier, wait in flying)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def threads_each(count: int) -> Iterator[None]:
    """Set torch's number of threads for threads started in the block; restore the caller's number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
