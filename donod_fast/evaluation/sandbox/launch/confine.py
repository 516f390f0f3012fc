"""The last steps before a process executes the program: limits, user, privileges and open files."""

from __future__ import annotations

import os
import resource
import signal
import sys

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any, NoReturn

CHANNEL = 3  # the program's end of the duplex channel
STARTED = b"S"  # on the status pipe: isolation is complete, the program is about to be executed
FAILED = b"E"  # on the status pipe: the error text follows
_FIXED = {"RLIMIT_MEMLOCK": 0, "RLIMIT_MSGQUEUE": 0, "RLIMIT_RTPRIO": 0, "RLIMIT_NICE": 0, "RLIMIT_SIGPENDING": 128}


def become_program(settings: dict[str, Any], status: int, user: int | None, filtered: bool) -> NoReturn:
    """Execute the program under its limits; an error is written to ``status``, and the process exits.

    The program gets descriptors 0 to 3; all others are closed.

    Args:
        settings: the settings sent to :func:`monitor.main`.
        status: the writing end of the status pipe.
        user: the user id to change to, or ``None`` to keep the current user.
        filtered: whether to drop privileges and filter system calls (False without isolation).
    """
    try:
        if status != CHANNEL + 1:
            os.dup2(status, CHANNEL + 1, inheritable=False)
            status = CHANNEL + 1
        os.closerange(status + 1, 1 << 16)
        os.set_inheritable(status, False)
        os.set_inheritable(CHANNEL, True)
        _restore_signals()
        _set_limits(settings["limits"])
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        if filtered:
            drop_rights(settings["filter"])
        os.chdir(settings["scratch"])
        os.write(status, STARTED)
        os.execve(settings["argv"][0], settings["argv"], settings["environment"])
    except BaseException as error:
        os.write(status, FAILED + f"{error}".encode()[:2000])
    finally:
        os._exit(127)


def drop_rights(program: bytes) -> None:
    """Give up all capabilities and the chance of new ones, and install the system call filter ``program``."""
    from . import system

    system.drop_capabilities()
    try:  # noqa: SIM105  (contextlib is slow to import)
        system.prctl(system.PR_CAP_AMBIENT, 4)
    except OSError:  # kernels without ambient capabilities have none to clear
        pass
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    system.set_system_call_filter(program)


def _restore_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def first_to_be_killed() -> None:
    """Let the kernel kill the sandbox first if the machine runs out of memory.

    To be called while all rights are there: the program then cannot undo it.
    """
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, b"1000")
        os.close(descriptor)
    except OSError:
        pass


def _set_limits(limits: dict[str, int]) -> None:
    _lower(resource.RLIMIT_CORE, 1)  # 0 would still start the machine's own handler of crashes, with root's rights
    _lower(resource.RLIMIT_CPU, limits["cpu_seconds"], limits["cpu_seconds"] + 1)
    _lower(resource.RLIMIT_FSIZE, limits["file_size"])
    _lower(resource.RLIMIT_NOFILE, limits["open_files"])
    _lower(resource.RLIMIT_AS, limits["memory"])
    for name, value in _FIXED.items():
        if hasattr(resource, name):
            _lower(getattr(resource, name), value)
    if limits["user_processes"]:
        _lower(resource.RLIMIT_NPROC, limits["user_processes"])


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    ceiling = resource.getrlimit(kind)[1]
    wanted = soft if hard is None else hard
    allowed = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    try:
        resource.setrlimit(kind, (min(soft, allowed), allowed))
    except (ValueError, OSError):
        if sys.platform == "linux":  # macOS lacks some of these
            raise
