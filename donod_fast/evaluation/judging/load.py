"""How long a sandboxed process waited for a processor because of other load on the machine.

A program that does not answer in time has either not worked (it sleeps, or waits for something), or the machine gave it
no processor. The kernel counts the second: the time that a thread was ready to run and did not. What is left of the
wall time is the program's own, however busy the machine is.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from donod_fast.evaluation.sandbox import Process

_RUNNING = "R"
_NANO = 1e9


@dataclass(frozen=True, slots=True)
class Usage:
    """What the threads of a sandbox have done so far, in seconds.

    Attributes:
        ran: processor time of all processes, including ended ones that were waited for.
        waited: by thread, how long it was ready to run and did not.
        running: number of threads that run or are ready to.
    """

    ran: float
    waited: dict[str, float]
    running: int


class Load:
    """Other load on the machine, as one sandboxed process feels it.

    Args:
        process: the process.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._monitor: int | None = None
        self._first = self._last = self._usage()
        self._own = _waited(f"self/task/{threading.get_native_id()}")

    @property
    def known(self) -> bool:
        """Whether this machine tells."""
        return self._last is not None and bool(_read("self/schedstat"))

    @property
    def ran(self) -> float:
        """Seconds of processor time of the process and all that it started, from here to the last :meth:`waited`."""
        return 0.0 if self._last is None or self._first is None else self._last.ran - self._first.ran

    def waited(self) -> float:
        """Seconds that the process and this thread waited for a processor since the last call.

        Of several threads the one that waited most counts. But several busy threads make each other wait: then it is
        not other load.
        """
        before, self._last = self._last, self._usage() or self._last
        own, self._own = self._own, _waited(f"self/task/{threading.get_native_id()}")
        others = max(0.0, self._own - own)
        if before is None or self._last is None or max(before.running, self._last.running) > 1:
            return others
        return others + max(time - before.waited.get(thread, 0.0) for thread, time in self._last.waited.items())

    def _usage(self) -> Usage | None:
        if self._monitor is None:
            self._monitor = self._process.monitor()
        if self._monitor is None:
            return None
        return usage(self._monitor)


def usage(monitor: int) -> Usage | None:
    """Usage of all processes below a sandbox's monitor; None if there are none, or the machine does not tell."""
    from donod_fast.evaluation.sandbox.launch.processes import members  # not on Windows

    ran, waited, running = 0.0, {}, 0
    found = members(monitor)
    for process in found:
        times = _stat(f"{process}")[11:15]  # utime, stime, and those of the children that were waited for
        ran += sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        for thread in _threads(process):
            waited[thread] = _waited(f"{process}/task/{thread}")
            running += _stat(f"{process}/task/{thread}")[:1] == [_RUNNING]
    return Usage(ran, waited, running) if waited else None


def _threads(process: int) -> list[str]:
    try:
        return [path.name for path in Path(f"/proc/{process}/task").iterdir()]
    except OSError:  # it has ended, or this is not Linux
        return []


def _waited(path: str) -> float:
    fields = _read(f"{path}/schedstat").split()
    return int(fields[1]) / _NANO if len(fields) > 1 else 0.0


def _stat(path: str) -> list[str]:
    return _read(f"{path}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path("/proc", path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
