"""Send tasks through a pool of Ray Data actors. A separate thread does it, so that the driver can watch the run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from donod_fast.engines.isolation import MOST_TRIES
from donod_fast.engines.ray.connection import import_ray

POLL_SECONDS = 0.5
PARTING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ActorPool:
    """The actors of a run.

    Attributes:
        actor: class of the actors; an instance is called with batches of one row.
        arguments: arguments of its constructor.
        size: number of actors.
        cpus: CPUs of each actor.
        gpus: GPUs of each actor.
    """

    actor: type
    arguments: tuple[Any, ...]
    size: int
    cpus: float
    gpus: float


class Stream:
    """One pass of tasks through the actors.

    Ray Data runs a task as often as necessary, on any node: its pools restart actors and repeat their tasks without
    limit.

    Args:
        pool: the actors.
        items: the tasks, a dictionary each.
        column: the column of the actors' results that is wanted.
    """

    def __init__(self, pool: ActorPool, items: Sequence[dict[str, Any]], column: str) -> None:
        self._pool, self._items, self._column = pool, items, column
        self._arrived: queue.Queue[str | Exception | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)

    def results(self, look_around: Callable[[], None]) -> Iterator[str]:
        """Results of the actors in the order of arrival; ``look_around`` is called regularly, and at the end.

        Raises:
            Exception: what Ray raises when it gives up.
        """
        self._thread.start()
        while True:
            with suppress(queue.Empty):
                item = self._arrived.get(timeout=POLL_SECONDS)
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    look_around()
                    return
                yield item
                if not self._arrived.empty():
                    continue
            look_around()

    @property
    def is_over(self) -> bool:
        """Whether all tasks have ended."""
        return not self._thread.is_alive()

    def end(self, workers: Callable[[], Sequence[Any]]) -> None:
        """Wait for the end of the stream; kill workers that still run after some seconds."""
        self._thread.join(PARTING_SECONDS / 2)
        if self._thread.is_alive():
            for worker in workers():
                import_ray().kill(worker)
            self._thread.join(PARTING_SECONDS / 2)

    def _run(self) -> None:
        data = import_ray().data
        pool = self._pool
        try:
            with _settings(data, pool.size):
                # One block, and so one Ray task, per item: a lost worker costs one item.
                stream = data.from_items(list(self._items), override_num_blocks=len(self._items)).map_batches(
                    pool.actor,
                    batch_size=1,
                    fn_constructor_args=pool.arguments,
                    num_cpus=pool.cpus,
                    num_gpus=pool.gpus or None,
                    compute=data.ActorPoolStrategy(size=min(pool.size, len(self._items))),
                )
                for batch in stream.iter_batches(batch_size=None, prefetch_batches=0):
                    for text in batch[self._column]:
                        self._arrived.put(str(text))
            self._arrived.put(None)
        except Exception as error:
            self._arrived.put(error)


@contextmanager
def _settings(data: Any, workers: int) -> Iterator[None]:
    """Settings of Ray Data during a run: no output, and no time limit, because a task may take long."""
    context = data.DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "enable_auto_log_stats": False,
        "max_errored_blocks": 0,
        "execution_no_progress_timeout_s": -1,
        "max_consecutive_actor_init_deaths": MOST_TRIES * workers,
    }
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    for name in before:
        setattr(context, name, wanted[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


__all__ = ["ActorPool", "Stream"]
