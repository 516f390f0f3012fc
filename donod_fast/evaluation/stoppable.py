"""A sandbox whose running programs can all be killed at once, for interrupts."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from weakref import WeakSet

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox import Isolation, Limits, Process, Sandbox


class StoppableSandbox(Sandbox):
    """A sandbox that keeps track of its running programs."""

    def __init__(self, isolation: Isolation, limits: Limits, *, packages: bool) -> None:
        super().__init__(isolation, limits, packages=packages)
        self._lock = threading.Lock()
        self._started: WeakSet[Process] = WeakSet()
        self._stopped = False

    def start(
        self, code_files: Mapping[str, str | bytes], argv: Sequence[str], *, limits: Limits | None = None
    ) -> Process:
        """Start a program; see :meth:`Sandbox.start`.

        Raises:
            SandboxError: the sandbox was stopped, or no process can be started.
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
        """Kill all running programs and refuse new ones."""
        _sandbox.cache_clear()  # the next evaluation in this process gets a new sandbox
        with self._lock:
            self._stopped = True
            running = list(self._started)
        for process in running:
            # The thread that waits for it may be reaping it at this moment; either of the two may do so.
            with suppress(Exception):
                process.kill()

    def _refuse_after_stop(self) -> None:
        if self._stopped:
            raise SandboxError("no more programs can be started: the evaluation was interrupted")


def shared_sandbox(isolation: Isolation, limits: Limits, *, packages: bool) -> StoppableSandbox:
    """The sandbox with these settings: shared by all evaluations of a process, since idle judges are kept in it."""
    return _sandbox(isolation, limits, packages)


@cache
def _sandbox(isolation: Isolation, limits: Limits, packages: bool) -> StoppableSandbox:
    return StoppableSandbox(isolation, limits, packages=packages)
