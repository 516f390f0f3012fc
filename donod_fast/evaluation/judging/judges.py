"""Manage the processes of judgements: idle judges, the files of both sides, and exclusive or shared turns."""

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
_JUDGE = (
    "bootstrap", "codec", "encoder", "decoder", "wire", "remote", "evalplus_rules", "judge_side", "free_names",
    "bounds", "canonical", "wording",
)  # fmt: skip
_LIFE = 1800.0  # seconds after which a judge is replaced
_MEMORY = 3 << 30
_CHECK_SECONDS = 600.0  # processor time of one check's tests, as a last resort


@cache
def program_files() -> dict[str, bytes]:
    """The files of the program's process: only ours; the program itself is sent later."""
    return _compiled(_PROGRAM)


def _compiled(names: tuple[str, ...]) -> dict[str, bytes]:
    # Compiled once here, by the same interpreter: compiling would double the start-up time of each process.
    folder = resources.files("donod_fast.evaluation.judging")
    header = importlib.util.MAGIC_NUMBER + bytes(12)
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in names}
    return {
        f"{name}.pyc": header + marshal.dumps(compile(text, f"{name}.py", "exec")) for name, text in sources.items()
    }


@dataclass
class Judging:
    """A running judge.

    Attributes:
        process: its sandboxed process.
        whole: whether it reached a verdict, and so can judge again. False until it is set.
        born: when it was started.
    """

    process: Process
    whole: bool
    born: float


class Judges:
    """Judges by their sandbox: each forks itself for a check, so that its start-up cost is paid once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: WeakKeyDictionary[Sandbox, list[Judging]] = WeakKeyDictionary()
        atexit.register(self.close)

    @contextmanager
    def one(self, sandbox: Sandbox, *, fresh: bool = False) -> Iterator[Judging]:
        """A judge for one check, newly started if ``fresh``; it is stopped afterwards unless it is ``whole``."""
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
        """Stop all idle judges."""
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
        # Not the sandbox's limits: those are for programs, but EvalPlus's references return lists of ten million items.
        # The work on a program's answers has limits of its own; see bounds.py.
        limits = Limits(seconds=2 * _LIFE, cpu_seconds=_CHECK_SECONDS, memory=_MEMORY)
        process = sandbox.start(_judge_files(), ["{python}", "{program}/bootstrap.pyc", "judge"], limits=limits)
        return Judging(process, whole=False, born=time.monotonic())


def _end(judging: Judging) -> None:
    with suppress(SandboxError):  # it was killed from outside, together with its monitor
        judging.process.kill()


class Turns:
    """A lock for many shared judgements or one exclusive judgement."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A shared turn; waits while an exclusive turn is active or waiting."""
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
        """An exclusive turn."""
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
