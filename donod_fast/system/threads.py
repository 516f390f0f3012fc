"""How batches follow each other: side by side on a CPU, launched ahead on an accelerator.

On a CPU threads share the cores instead of one that splits every operation. The operations of a scoring batch are
short. Splitting each over all cores makes the cores wait for each other some ten thousand times a second; giving each
core a batch of its own does not.

An accelerator works through a queue, and waits for nobody as long as the next batch is in it before the last one is
done. So a batch's results are looked at only when two more have been launched, and what the host has to do for a
batch is done beside that.
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

# Each holds a batch's activations; more gains little where the cores share their memory's bandwidth.
_MOST_WORKERS = 4

_MADE_AHEAD = 2
_LAUNCHED_AHEAD = 2


def worker_count(device: torch.device) -> int:
    """How many batches to score at once: one on an accelerator, up to four on a CPU."""
    return max(1, min(torch.get_num_threads(), _MOST_WORKERS)) if device.type == "cpu" else 1


def in_order(
    work: Callable[[_In], _Out], items: Iterable[_In], workers: int
) -> Generator[tuple[_In, _Out], None, None]:
    """Yield each item with ``work(item)``, in the items' order, ``workers`` of them under way at a time.

    While it runs, torch's threads are shared out among the workers. Closing it early waits for what is
    under way. With one worker everything happens in the caller's thread, when asked for.
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
    """Yield each item with its result, in the items' order, some of them being launched ahead.

    Args:
        make: makes ready what is to be launched; runs in a thread of its own, ahead.
        launch: launches it from the caller's thread and gives a function that waits for the result, or None
            where it could not: then what was launched before is yielded, the item with None, and nothing after it.
        items: what to do.
        start: called once in the thread of ``make`` before anything else there.
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
    """New threads start with this many threads of torch's own; the caller's number comes back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
