"""Batches side by side on a CPU: threads that share the cores instead of one that splits every operation.

The operations of a scoring batch are short. Splitting each over all cores makes the cores wait for each
other some ten thousand times a second; giving each core a batch of its own does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_In = TypeVar("_In")
_Out = TypeVar("_Out")

# Each holds a batch's activations; more gains little where the cores share their memory's bandwidth.
_MOST_WORKERS = 4


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
    with _threads_each(torch.get_num_threads() // workers), ThreadPoolExecutor(workers, "score") as pool:
        for item in items:
            coming.append((item, pool.submit(work, item)))
            if len(coming) > workers:
                first, future = coming.popleft()
                yield first, future.result()
        for last, future in coming:
            yield last, future.result()


@contextmanager
def _threads_each(count: int) -> Iterator[None]:
    """New threads start with this many threads of torch's own; the caller's number comes back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
