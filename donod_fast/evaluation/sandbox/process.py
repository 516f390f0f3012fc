"""The caller's handle of one running program."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox.channel import Channel
from donod_fast.evaluation.sandbox.launch import wire
from donod_fast.evaluation.sandbox.launcher import LAUNCHER
from donod_fast.evaluation.sandbox.limits import Finished

_GRACE = 15.0  # seconds beyond the program's own time after which the monitor is killed too


class Process:
    """A program that runs in the sandbox. As a context manager it kills everything inside on exit.

    Created by :meth:`Sandbox.start`. Use it from one thread at a time (except one for ``send``, one for ``receive``).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._deadline = time.monotonic() + settings["limits"]["seconds"] + _GRACE
        self._end: Finished | SandboxError | None = None
        self._control, monitors_control = socket.socketpair()
        channel, programs_channel = socket.socketpair()
        self._channel = Channel(channel)
        try:
            with monitors_control, programs_channel:
                LAUNCHER.launch(monitors_control.fileno(), programs_channel.fileno())
            with suppress(BrokenPipeError, ConnectionResetError):  # its report, or a missing report, gives the reason
                wire.send_settings(self._control.fileno(), settings)
        except BaseException:
            self._control.close()
            self._channel.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(SandboxError):
            self.kill()

    def send(self, data: bytes, deadline: float | None = None) -> None:
        """Send one frame to the program.

        Args:
            data: its content.
            deadline: when to give up, on the clock of :func:`time.monotonic`; None: when the program's time is over.

        Raises:
            Timeout: the program did not read it in time; :meth:`send_rest` must come before another frame.
            Ended: the program closed the channel or has ended.
        """
        self._channel.send(data, self._deadline if deadline is None else min(deadline, self._deadline))

    def send_rest(self, deadline: float) -> None:
        """Send what a :class:`Timeout` of :meth:`send` left of a frame. Raises as :meth:`send`."""
        self._channel.send_rest(min(deadline, self._deadline))

    def receive(self, deadline: float, max_bytes: int) -> bytes:
        """Receive one frame from the program; after a :class:`Timeout` it may be called again.

        Args:
            deadline: when to give up, on the clock of :func:`time.monotonic`.
            max_bytes: the most that a frame may have.

        Raises:
            Timeout: no complete frame arrived in time.
            Ended: the program closed the channel or has ended (:meth:`finish` says how).
            TooLarge: a larger frame was announced.
        """
        return self._channel.receive(deadline, max_bytes)

    def monitor(self) -> int | None:
        """Process id of the monitor, the ancestor of all processes of the program; None before it has started."""
        try:
            return wire.unpack_number(self._control.recv(4, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return None

    def finish(self) -> Finished:
        """Wait until the program exits or meets a limit; its end of the channel is closed.

        Raises:
            SandboxError: the program was never started.
        """
        if self._end is None:
            self._channel.close_sending()
        return self._collected()

    def kill(self) -> Finished:
        """Kill the program and everything that it started (``how`` is ``killed`` unless it had ended before).

        Raises:
            SandboxError: the program was never started.
        """
        if self._end is None:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
            self._deadline = min(self._deadline, time.monotonic() + _GRACE)
        return self._collected()

    def _collected(self) -> Finished:
        if self._end is None:
            try:
                self._end = self._collect()
            finally:
                self._channel.close()
                self._control.close()  # this tells the monitor to kill the program if it still runs
                self._end = self._end or SandboxError("the sandboxed program was not waited for")
        if isinstance(self._end, SandboxError):
            raise self._end
        return self._end

    def _collect(self) -> Finished | SandboxError:
        said = bytearray()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            try:
                part = self._control.recv(1 << 16)
            except ConnectionResetError:
                part = b""
            if not part:
                break
            said += part
        else:
            self._kill_monitor(bytes(said))
        report = wire.unpack_report(bytes(said))
        if isinstance(report, str):
            return SandboxError(f"the sandbox could not be set up: {report}")
        how, code, seconds, peak, stdout, stderr = report
        return Finished(how, code if how in ("exited", "signalled") else None, stdout, stderr, seconds, peak)

    def _kill_monitor(self, said: bytes) -> None:
        """Kill a monitor that does not answer (its open socket means it lives); the kernel then ends the sandbox."""
        number = wire.unpack_number(said)
        if number is not None:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
