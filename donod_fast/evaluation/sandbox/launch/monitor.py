"""The process outside one sandbox: it starts the sandbox, reads its output, enforces limits, ends it and reports.

It is the only parent of the sandbox. It ends the sandbox when the caller asks for it or exits (its end of the control
socket closes), and the kernel ends the sandbox if the monitor itself is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import sys
import time

from . import processes, wire
from .confine import CHANNEL, FAILED, STARTED, become_program, first_to_be_killed

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

_HIGH = 32  # the monitor's own descriptors start here
_TICK = 0.025  # seconds between two checks of the sandbox's processes
_REST = 4.0  # times the processor time of a look, the monitor rests afterwards
_SHORT_REST = 0.5  # the same, where memory that processes still share could become more than the limit by copies
_PATIENCE = 5.0  # seconds for killed processes to disappear


def main(control: int, channel: int) -> None:
    """Run one program with the settings from ``control``, and report there."""
    os.umask(0o022)
    control, channel = _high(control), _high(channel)
    try:
        wire.send_number(control)
        settings = wire.receive_settings(control)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            run = _Run(settings, control, channel)
            run.watch()
            run.report()
        except OSError as error:
            wire.send_failure(control, str(error))
        except Exception as error:
            wire.send_failure(control, repr(error))
        finally:
            if settings["temporary"]:
                import shutil

                shutil.rmtree(settings["temporary"], ignore_errors=True)


class _Run:
    def __init__(self, settings: dict[str, Any], control: int, channel: int) -> None:
        self.isolation: str = settings["isolation"]
        self.limits: dict[str, Any] = settings["limits"]
        self.scratch: str = settings["scratch"]
        self.control = control
        # Both, as a fork of the caller may hold its end of the socket open.
        caller = end_of(settings["caller"])
        if caller is None and sys.platform == "linux":
            raise OSError("the caller has exited")
        self.caller = None if caller is None else _high(caller)
        self.output, output = map(_high, os.pipe())
        self.errors, errors = map(_high, os.pipe())
        self.status, status = map(_high, os.pipe())
        self.text = {self.output: b"", self.errors: b""}
        self.how = ""
        self.peak = 0
        self.folder: int | None = None
        self.socket = processes.waiting_in_a_socket()
        self.done = self.wait_status = 0
        self.started = time.monotonic()
        for number, descriptor in enumerate((os.open("/dev/null", os.O_RDONLY), output, errors, channel)):
            os.dup2(descriptor, number)
        self.child, self.root = self._start(settings, status)
        watched = {process: None for process in (self.child, self.root) if process not in (None, os.getpid())}
        self.ends = [end for process in watched if process and (end := end_of(process)) is not None]
        for descriptor in (output, errors, status, channel):
            os.close(descriptor)
        nothing = os.open("/dev/null", os.O_RDWR)
        for number in range(CHANNEL + 1):
            os.dup2(nothing, number)

    def _start(self, settings: dict[str, Any], status: int) -> tuple[int, int | None]:
        """The process to wait for, and the ancestor of the program's processes."""
        if self.isolation != "none":
            from . import filters

            settings["filter"] = filters.system_call_filter()
        if self.isolation == "namespaces":
            from . import namespaces

            child = namespaces.start(settings, status)
            return child, child
        if self.isolation == "bubblewrap":
            from . import bubblewrap

            _adopt_orphans()
            return bubblewrap.start(settings, status, sys.executable)
        return _start_without_walls(settings, status), os.getpid()

    def watch(self) -> None:
        """Return when the program has ended for any reason (exit, limit, caller) and all its processes are gone."""
        deadline = self.started + self.limits["seconds"]
        poll = select.poll()
        for descriptor in (self.control, self.output, self.errors, *self.ends[:1]):
            poll.register(descriptor, select.POLLIN)
        if self.caller is not None:
            poll.register(self.caller, select.POLLIN)
        next_look = self.started + _TICK
        while not self.how and not self._ended():
            now = time.monotonic()
            if now >= next_look:
                pause = self._look()
                now = time.monotonic()
                next_look = now + pause
            for descriptor, _ in poll.poll(max(0.0, min(deadline, next_look) - now) * 1000):
                if descriptor in (self.control, self.caller):
                    self.how = self.how or "killed"
                elif descriptor in self.text and not self._take(descriptor):
                    poll.unregister(descriptor)
            if not self.how and time.monotonic() >= deadline:
                self.how = "timeout"
        self._clear()
        for descriptor in self.text:
            os.set_blocking(descriptor, False)
            with contextlib.suppress(BlockingIOError):
                while self._take(descriptor):
                    pass

    def report(self) -> None:
        """Report to the caller how the program ended."""
        seconds = time.monotonic() - self.started
        os.set_blocking(self.status, False)
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self.status, 1 << 12)
        started = said.startswith(STARTED)
        said = said.removeprefix(STARTED)
        if said.startswith(FAILED) or not (started or self.how):  # no wait status begins with that byte
            text = said.removeprefix(FAILED) or self.text[self.errors][-2000:] or b"it ended before the program began"
            return wire.send_failure(self.control, text.decode("utf-8", "replace").strip())
        if not self.done:
            return wire.send_failure(self.control, "its processes could not be ended")
        code = os.waitstatus_to_exitcode(int.from_bytes(said, "little") if said else self.wait_status)
        if not said and self.isolation == "bubblewrap" and 128 < code <= 128 + signal.NSIG:
            code = 128 - code  # bubblewrap reports in this way that the first process was killed
        how = self.how or ("exited" if code >= 0 else "signalled")
        # The total of all reaped processes and of those that they reaped.
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = usage.ru_utime + usage.ru_stime
        if how == "signalled" and (
            code == -signal.SIGXCPU or (code == -signal.SIGKILL and used >= self.limits["cpu_seconds"])
        ):
            how = "timeout"
        peak = max(self.peak, usage.ru_maxrss * 1024)
        return wire.send_report(self.control, how, code, seconds, peak, self.text[self.output], self.text[self.errors])

    def _take(self, descriptor: int) -> bool:
        """Read the available data of a pipe, up to the limit on output; returns whether more may come."""
        part = os.read(descriptor, 1 << 16)
        room = self.limits["output"] - sum(map(len, self.text.values()))
        self.text[descriptor] += part[:room]
        if len(part) > room:
            self.how = self.how or "output"
        return bool(part) and len(part) <= room

    def _look(self) -> float:
        """Hold the sandbox's processes to their common limits; returns the seconds until the next look."""
        if self.root is None or not os.path.exists("/proc/self/task"):  # noqa: PTH110
            return _TICK
        begun = time.process_time()  # not wall time, which a program and other load can make longer
        found = processes.members(self.root)
        in_files, files = self._scratch(found)
        state = processes.Held(found, self.socket, self.limits["open_files"])
        limit = self.limits["memory"]
        held = most = in_files + state.most()
        if held > limit and (in_files or len(found) > 1):
            held = in_files + state.shared()
        self.peak = max(self.peak, held)
        if held > limit:
            self.how = "memory"
        elif sum(map(len, found.values())) > self.limits["processes"] + 2:  # the kernel's count is exact; a safety net
            self.how = "processes"
        elif self.isolation != "none" and (files > self.limits["files"] or state.pipes > self.limits["open_files"]):
            self.how = "files"
        soon = _TICK if held < limit / 4 else _TICK / 5
        rest = _SHORT_REST if most > limit else _REST
        return max(soon, rest * (time.process_time() - begun))

    def _scratch(self, found: dict[int, list[int]]) -> tuple[int, int]:
        """Bytes and number of files in scratch. It stays open, so that no program can hide it from us."""
        if self.isolation == "none":
            return 0, 0
        if self.folder is None:
            for threads in found.values():
                if self.folder is None:
                    self.folder = processes.scratch(threads, self.scratch)
        return (0, 0) if self.folder is None else processes.usage(self.folder)

    def _ended(self) -> bool:
        if not self.done:
            self.done, self.wait_status = os.waitpid(self.child, os.WNOHANG)
        return bool(self.done)

    def _clear(self) -> None:
        """Kill all remaining processes and wait until they are gone."""
        latest = time.monotonic() + _PATIENCE
        if self.isolation == "none":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child, signal.SIGKILL)
            while time.monotonic() < latest and not (self._ended() and _collect_adopted()):
                for process in processes.members(os.getpid()) or ([] if self.done else [self.child]):
                    _kill(process)
                time.sleep(0.001)
            return
        for end in reversed(self.ends):  # killing the sandbox's first process kills all others
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)
        for end in self.ends:
            gone = select.poll()
            gone.register(end, select.POLLIN)
            gone.poll(max(0.0, latest - time.monotonic()) * 1000)
        self._ended()
        _collect_adopted()


def _start_without_walls(settings: dict[str, Any], status: int) -> int:
    linux = sys.platform == "linux"
    if linux:
        _adopt_orphans()
    child = os.fork()
    if child == 0:
        if linux:
            from .namespaces import die_with_monitor

            die_with_monitor(status)
        else:
            os.setsid()
        first_to_be_killed()
        become_program(settings, status, None, filtered=False)
    return child


def _adopt_orphans() -> None:
    from . import system

    system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, signal.SIGKILL)


def _collect_adopted() -> bool:
    """Reap ended processes that the monitor adopted; returns whether none is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def end_of(process: int) -> int | None:
    """A descriptor that becomes readable when the process ends (Linux)."""
    if not hasattr(os, "pidfd_open"):
        return None
    with contextlib.suppress(ProcessLookupError):
        return os.pidfd_open(process)
    return None


def _high(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    os.close(descriptor)
    return moved
