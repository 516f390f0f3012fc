"""A sandbox whose running programs can all be ended at once: what an interrupt needs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from weakref import WeakSet

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox import Isolation, Limits, Process, Sandbox


class StoppableSandbox(Sandbox):
    """A sandbox that knows what runs in it."""

    def __init__(self, isolation: Isolation, limits: Limits, *, packages: bool) -> None:
        super().__init__(isolation, limits, packages=packages)
        self._lock = threading.Lock()
        self._started: WeakSet[Process] = WeakSet()
        self._stopped = False

    def start(
        self, code_files: Mapping[str, str | bytes], argv: Sequence[str], *, limits: Limits | None = None
    ) -> Process:
        """As the sandbox's own.

        Raises:
            SandboxError: it has been stopped, or as there.
        """
        self._refuse_after_stop()
        process = super().start(code_files, argv, limits=limits)
        try:
            with self._lock:
                self._refuse_after_stop()
                self._started.add(process)
        except SandboxError:
            process.kill()
            raise
        return process

    def stop(self) -> None:
        """End whatever runs, and start nothing more."""
        _sandbox.cache_clear()  # whoever evaluates next in this process gets another one
        with self._lock:
            self._stopped = True
            running = list(self._started)
        for process in running:
            # The thread that waits for it may be collecting its end at this moment: either of the two will do.
            with suppress(Exception):
                process.kill()

    def _refuse_after_stop(self) -> None:
        if self._stopped:
            raise SandboxError("no program is started any more: the evaluation was interrupted")


def shared_sandbox(isolation: Isolation, limits: Limits, *, packages: bool) -> StoppableSandbox:
    """The sandbox of these settings: one for all evaluations of a process, since judges wait in it for the next."""
    return _sandbox(isolation, limits, packages)


@cache
def _sandbox(isolation: Isolation, limits: Limits, packages: bool) -> StoppableSandbox:
    return StoppableSandbox(isolation, limits, packages=packages)
