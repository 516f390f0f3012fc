"""Cache of the outputs of EvalPlus's reference solutions, for further samples of the same task."""

from __future__ import annotations

import threading
from collections import OrderedDict

ROOM = 64 << 20
"""Maximum bytes in the cache."""


class ExpectedOutputs:
    """A task's outputs in input order, as far as they were computed, by a digest of everything they depend on."""

    def __init__(self, room: int = ROOM) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, list[bytes]] = OrderedDict()
        self._room = room
        self._size = 0

    def known(self, key: bytes) -> list[bytes]:
        """The cached first outputs of a task; may be empty."""
        with self._lock:
            return list(self._kept.get(key, ()))

    def keep(self, key: bytes, outputs: list[bytes]) -> None:
        """Store a task's first outputs unless more are cached; the oldest tasks are evicted when the cache is full."""
        with self._lock:
            if len(outputs) <= len(self._kept.get(key, ())):
                return
            self._size += sum(map(len, outputs)) - sum(map(len, self._kept.pop(key, [])))
            self._kept[key] = outputs
            while self._size > self._room:
                _, oldest = self._kept.popitem(last=False)
                self._size -= sum(map(len, oldest))
