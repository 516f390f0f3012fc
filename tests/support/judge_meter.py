"""Measures what a judgement costs: processor time and memory of the judge's processes, and memory of the caller."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

from donod_fast.evaluation.sandbox.launcher import LAUNCHER

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


class JudgeMeter:
    """Samples the processes of judges while it is open.

    Attributes:
        processor: the most seconds of processor time of one process that judges.
        memory: the most bytes of resident memory of one process that judges.
        growth: bytes by which the caller's own resident memory grew at most.
    """

    def __init__(self, seconds: float = 0.01) -> None:
        self.processor = 0.0
        self.memory = 0
        self.growth = 0
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> JudgeMeter:
        self._before = _resident("self")
        self._old = {number: _processor(number) for number in judges()}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._seconds):
            self.growth = max(self.growth, _resident("self") - self._before)
            for number in judges():
                self.memory = max(self.memory, _peak(number))
                self.processor = max(self.processor, _processor(number) - self._old.get(number, 0.0))


def judges() -> list[int]:
    """Process ids of all judges that this process has started, and of their forks."""
    server = LAUNCHER._server
    return [] if server is None else [one for one in _descendants(server.pid) if _judges(one)]


def _descendants(root: int) -> list[int]:
    found: list[int] = []
    for child in _read(f"{root}/task/{root}/children").split():
        found += [int(child), *_descendants(int(child))]
    return found


def _judges(number: int) -> bool:
    words = _read(f"{number}/cmdline").rstrip("\0").split("\0")
    return words[-1] == "judge" and "python" in words[0]


def _processor(number: int) -> float:
    fields = _read(f"{number}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK if len(fields) > 12 else 0.0


def _peak(number: int) -> int:
    for line in _read(f"{number}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _resident(number: str) -> int:
    fields = _read(f"{number}/statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def _read(path: str) -> str:
    try:
        return Path("/proc", path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
