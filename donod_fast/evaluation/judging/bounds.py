"""Limits on the work that a program's answers cause in the judge's process.

A small answer can take any time to use: a dict whose keys collide, ``sum`` of a range of 10**12 numbers. Most of that
time passes within one call of the interpreter's own code, which no exception interrupts. So the kernel counts the
processor time and ends the process, and its parent tells by its exit code what became of it.
"""

from __future__ import annotations

import os
import signal
import time

MEMORY = 480 << 20
"""Bytes of address space of the process that has a program's answers."""

JUDGED = 77
"""Exit code of a fork that has sent its verdict."""
_NO_MEMORY = 78

_CUT_OFF = {("timeout", False): 80, ("timeout", True): 81, ("memory", False): 82, ("memory", True): 83}
CUT_OFF = {code: ending for ending, code in _CUT_OFF.items()}
"""Exit codes of a judge whose fork met one of these limits: status, and whether the base tests were passed."""

_LEAST = 0.001  # seconds; zero would switch the timer off


class Bounds:
    """The limits of one fork. They begin with the first answer: what the tests do before is trusted.

    Args:
        each: seconds of processor time for the work on one answer.
        total: seconds of processor time for the work on all answers.
    """

    def __init__(self, each: float, total: float) -> None:
        self._each = each
        self._total = total
        self._end: float | None = None

    def next_answer(self) -> None:
        """An answer has arrived, or the work on the next one begins."""
        now = time.process_time()
        if self._end is None:
            import resource  # not on Windows, where the caller imports this module

            self._end = now + self._total
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
        signal.setitimer(signal.ITIMER_PROF, max(_LEAST, min(self._each, self._end - now)))


class OutOfMemory:
    """Lets the parent know that the fork ran out of memory, when nothing but its exit code can."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, MemoryError):
            os._exit(_NO_MEMORY)


def cut_off(code: int, base: bool) -> int | None:
    """The judge's own exit code if a fork that ended with ``code`` met a limit, otherwise None."""
    if code == -signal.SIGPROF:
        return _CUT_OFF["timeout", base]
    # The signals are how the interpreter ends where an allocation must not fail.
    if code == _NO_MEMORY or -code in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS):
        return _CUT_OFF["memory", base]
    return None


class BaseMark:
    """A pipe through which a fork tells its parent that the base tests were passed, even if it is ended later."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()

    def set(self) -> None:
        """In the fork: the base tests were passed."""
        os.write(self._writes, b"B")

    def collect(self) -> bool:
        """In the parent, once the fork has ended: whether they were; closes the pipe."""
        os.close(self._writes)
        try:
            return os.read(self._reads, 1) == b"B"
        finally:
            os.close(self._reads)
