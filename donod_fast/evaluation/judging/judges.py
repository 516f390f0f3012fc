"""The processes of judgements: judges that wait for the next check, the files of either side, and whose turn it is."""

from __future__ import annotations

import atexit
import importlib.util
import marshal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from weakref import WeakKeyDictionary

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox import Limits, Process, Sandbox

_PROGRAM = ("bootstrap", "codec", "encoder", "decoder", "wire", "program_side")
_JUDGE = ("bootstrap", "codec", "encoder", "decoder", "wire", "remote", "evalplus_rules", "judge_side", "free_names")
_LIFE = 1800.0  # seconds after which a judge is replaced
_MEMORY = 3 << 30
_CHECK_SECONDS = 600.0  # processor time of one check's tests, as the last resort


@cache
def program_files() -> dict[str, bytes]:
    """The files of the program's process: ours, without the program, which is sent."""
    return _compiled(_PROGRAM)


def _compiled(names: tuple[str, ...]) -> dict[str, bytes]:
    # Compiled once here, by the same interpreter: it would take each process as long as all else that it does.
    folder = resources.files("donod_fast.evaluation.judging")
    header = importlib.util.MAGIC_NUMBER + bytes(12)
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in names}
    return {
        f"{name}.pyc": header + marshal.dumps(compile(text, f"{name}.py", "exec")) for name, text in sources.items()
    }


@dataclass
class Judging:
    """A judge at work.

    Attributes:
        process: its sandboxed process.
        whole: whether it came to a verdict, and so can judge again. False until someone says so.
        born: when it was started.
    """

    process: Process
    whole: bool
    born: float


class Judges:
    """Judges by the sandbox that they are in: each forks itself for a check, so that starting one is paid for once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: WeakKeyDictionary[Sandbox, list[Judging]] = WeakKeyDictionary()
        atexit.register(self.close)

    @contextmanager
    def one(self, sandbox: Sandbox, *, fresh: bool = False) -> Iterator[Judging]:
        """A judge for one check, newly started if ``fresh``; ended afterwards unless it is ``whole``."""
        judging = (None if fresh else self._take(sandbox)) or self._start(sandbox)
        try:
            yield judging
        except BaseException:
            judging.whole = False
            raise
        finally:
            if judging.whole:
                judging.whole = False
                with self._lock:
                    self._idle.setdefault(sandbox, []).append(judging)
            else:
                _end(judging)

    def close(self) -> None:
        """End all judges that wait."""
        with self._lock:
            waiting = [judging for group in self._idle.values() for judging in group]
            self._idle.clear()
        for judging in waiting:
            with suppress(Exception):
                _end(judging)

    def _take(self, sandbox: Sandbox) -> Judging | None:
        while True:
            with self._lock:
                group = self._idle.get(sandbox)
                judging = group.pop() if group else None
            if judging is None or time.monotonic() < judging.born + _LIFE:
                return judging
            _end(judging)

    def _start(self, sandbox: Sandbox) -> Judging:
        # Not the sandbox's limits: those are for programs, and references of EvalPlus give lists of ten million items.
        limits = Limits(seconds=2 * _LIFE, cpu_seconds=_CHECK_SECONDS, memory=_MEMORY)
        process = sandbox.start(_judge_files(), ["{python}", "{program}/bootstrap.pyc", "judge"], limits=limits)
        return Judging(process, whole=False, born=time.monotonic())


def _end(judging: Judging) -> None:
    with suppress(SandboxError):  # somebody else has ended it, and what stands around it
        judging.process.kill()


class Turns:
    """Lets many judge at a time, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A turn beside others; waits while one is alone or wants to be."""
        with self._changed:
            self._changed.wait_for(lambda: self._running >= 0 and not self._waiting)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A turn with no other."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._running == 0)
            self._waiting -= 1
            self._running = -1
        try:
            yield
        finally:
            with self._changed:
                self._running = 0
                self._changed.notify_all()


@cache
def _judge_files() -> dict[str, bytes]:
    return _compiled(_JUDGE)
