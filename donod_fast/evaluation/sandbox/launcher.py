"""The caller's side of the process that forks monitors: started on first use, one per calling process."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox.layout import base_interpreter

with suppress(
    ImportError
):  # compiled here once, as that process writes no files (on Windows there is nothing to import)
    from donod_fast.evaluation.sandbox.launch import inside, server  # noqa: F401

_SCRIPT = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parent)!r}); "
    "from launch.server import main; main(int(sys.argv[1]))"
)


class _Launcher:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def launch(self, control: int, channel: int) -> None:
        """Fork a monitor that owns the sockets of the two descriptors."""
        with self._lock:
            for attempt in (1, 2):
                requests = self._requests or self._start()
                try:
                    socket.send_fds(requests, [b"1"], [control, channel])
                    return
                except OSError as error:  # it was killed from outside
                    self._stop()
                    if attempt == 2:
                        raise SandboxError(f"no process for a sandbox could be started: {error}") from error

    def forget(self) -> None:
        """After a fork: the server belongs to the parent."""
        self._lock = threading.Lock()
        if self._requests is not None:
            self._requests.close()
        if self._server is not None:
            self._server.returncode = 0  # so that this process does not wait for its parent's child
        self._requests = self._server = None

    def stop(self) -> None:
        """Stop the server; running programs keep their monitors."""
        with self._lock:
            self._stop()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [base_interpreter(), "-I", "-S", "-B", "-c", _SCRIPT, str(theirs.fileno())]
            nothing = subprocess.DEVNULL
            try:
                self._server = subprocess.Popen(
                    command,
                    stdin=nothing,
                    stdout=nothing,
                    stderr=nothing,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env={},
                    cwd="/",
                )
            except OSError as error:
                ours.close()
                raise SandboxError(f"no process for a sandbox could be started: {error}") from error
        self._requests = ours
        return ours

    def _stop(self) -> None:
        if self._requests is not None:
            self._requests.close()
        if self._server is not None:
            try:
                self._server.wait(2)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._requests = self._server = None


LAUNCHER = _Launcher()
atexit.register(LAUNCHER.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LAUNCHER.forget)
