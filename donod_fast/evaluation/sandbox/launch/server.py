"""A permanent process with all imports done that forks a monitor for each program: half the cost of a new process.

It serves the process that started it and exits with it. It has no data of the programs and is never in a sandbox.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

from . import bubblewrap, filters, monitor, namespaces  # noqa: F401  (imported once, for all that are forked)

_REAP = 1000  # milliseconds


def main(listening: int) -> None:
    """Fork a monitor for each received pair of descriptors (its control socket, the program's channel)."""
    requests = socket.socket(fileno=listening)
    with contextlib.suppress(OSError):  # built once, for all that are forked; each says what is wrong
        filters.system_call_filter()
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    if (caller := monitor.end_of(os.getppid())) is not None:
        poll.register(caller, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll(_REAP)]
        _reap()
        if caller in ready:
            return
        if listening not in ready:
            continue
        data, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
        if not data:
            return
        if os.fork() == 0:
            _be_monitor(requests, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _be_monitor(requests: socket.socket, control: int, channel: int) -> None:
    try:
        requests.close()
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        monitor.main(control, channel)
    finally:
        os._exit(0)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
