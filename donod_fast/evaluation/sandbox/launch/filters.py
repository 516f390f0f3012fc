"""The system call filter: what :mod:`calls` lists is allowed, some of it with certain arguments only.

A refused call fails with an error number, and the program continues.
"""

from __future__ import annotations

import errno
import os
import struct

from .calls import ALLOWED, CLONE3

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERROR = 0x00050000

_LOAD, _EQUAL, _ABOVE, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # the second system call table of x86-64
_NEW_CALLS = 424  # from here on the C library expects that a call may be missing

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}

_NEW_NAMESPACES = 0x7E020000
_SHARED, _ANONYMOUS, _HUGE = 0x01, 0x20, 0x40000  # of mmap
_MERGEABLE, _PAGE_OUT = 12, 21  # of madvise: both need no memory of ours, but time of the machine's
_AF_UNIX = 1
_CORE = 4  # RLIMIT_CORE
# MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT, MSG_EOR, MSG_WAITALL, MSG_NOSIGNAL, MSG_MORE, MSG_CMSG_CLOEXEC. Above all not
# MSG_OOB: urgent data of a pair of sockets is a part of the kernel that has had faults and no use.
_MESSAGE = 0x02 | 0x20 | 0x40 | 0x80 | 0x100 | 0x4000 | 0x8000 | 0x40000000

# Only these values of an argument are allowed: call → (argument, values, error).
_ONLY = {
    # Duplicates, flags, and the size of a pipe. Not locks and leases, which other processes of the machine meet on
    # files that we share with them; not larger pipes.
    "fcntl": (1, (0, 1, 2, 3, 4, 1030, 1032), errno.EPERM),
    # TCGETS, TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
    "ioctl": (1, (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451), errno.ENOTTY),
    # names, and questions
    "prctl": (0, (3, 15, 16, 21, 23, 30, 39), errno.EPERM),
    "socketpair": (0, (_AF_UNIX,), errno.EAFNOSUPPORT),
    # SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_LINGER, SO_ACCEPTCONN, SO_PROTOCOL, SO_DOMAIN. Not
    # SO_PEERPIDFD: of our channel it is a descriptor of the caller's process.
    "getsockopt": (2, (2, 3, 4, 7, 8, 13, 30, 38, 39), errno.ENOPROTOOPT),
    # of this process only: another of the same user could be our own first process
    "sched_setaffinity": (0, (0,), errno.EPERM),
}

_built: dict[str, bytes] = {}


def system_call_filter(machine: str = "") -> bytes:
    """The filter for a machine (by default this one) as an array of ``struct sock_filter``.

    Raises:
        OSError: the machine's system call numbers are not known.
    """
    machine = machine or os.uname().machine
    if machine not in _COLUMN:
        raise OSError(errno.ENOSYS, f"no system call filter is known for {machine} machines")
    if machine not in _built:
        _built[machine] = _build(machine)
    return _built[machine]


def _build(machine: str) -> bytes:
    numbers = {name: both[_COLUMN[machine]] for name, both in ALLOWED.items()}
    allow, refuse = _step(_RETURN, _ALLOW), _step(_RETURN, _ERROR | errno.EPERM)
    code = [
        _step(_LOAD, _MACHINE_AT),
        _step(_EQUAL, _AUDIT[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)]
    code += [_step(_EQUAL, CLONE3, 0, 1), _step(_RETURN, _ERROR | errno.ENOSYS)]

    def when(name: str, steps: list[bytes]) -> None:
        number = numbers.pop(name)
        if number is not None:
            code.extend([_step(_EQUAL, number, 0, len(steps)), *steps])

    for name, (argument, values, error) in _ONLY.items():
        steps = [_step(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
        when(name, [_argument(argument), *steps, _step(_RETURN, _ERROR | error), allow])
    when("clone", [_argument(0), _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), refuse, allow])
    # Memory that is shared and has no file stays when no process maps it any more, so that nothing can count it.
    shared = [_step(_ANY_BIT, _ANONYMOUS, 0, 2), _step(_ANY_BIT, _SHARED, 0, 1), refuse]
    when("mmap", [_argument(3), _step(_ANY_BIT, _HUGE, 0, 1), refuse, *shared, allow])
    advice = [_step(_EQUAL, _MERGEABLE, 1, 0), _step(_EQUAL, _PAGE_OUT, 0, 1), refuse, allow]
    when("madvise", [_argument(2), *advice])
    for name in ("sendto", "recvfrom"):
        when(name, [_argument(3), _step(_ANY_BIT, 0xFFFFFFFF ^ _MESSAGE, 0, 1), refuse, allow])
    own = [_argument(0), _step(_EQUAL, 0, 0, 2), _argument(1), _step(_EQUAL, 0, 1, 0), refuse, allow]
    when("setpriority", own)
    # Limits of this process only, as above; and what keeps the machine's handler of crashes quiet stays.
    may = [_step(_EQUAL, _CORE, 0, 5), _argument(2), _step(_EQUAL, 0, 0, 2), _argument(2, 4), _step(_EQUAL, 0, 1, 0)]
    when("prlimit64", [_argument(0), _step(_EQUAL, 0, 1, 0), refuse, _argument(1), *may, refuse, allow])
    when("setrlimit", [_argument(0), _step(_EQUAL, _CORE, 0, 1), refuse, allow])
    for lowest, highest in _ranges(sorted(number for number in numbers.values() if number is not None)):
        error = errno.ENOSYS if lowest > _NEW_CALLS else errno.EPERM
        code += [_step(_ABOVE, highest, 3, 0), _step(_AT_LEAST, lowest, 0, 1), allow, _step(_RETURN, _ERROR | error)]
    code.append(_step(_RETURN, _ERROR | errno.ENOSYS))
    return b"".join(code)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _argument(place: int, half: int = 0) -> bytes:
    """Load the lower half of an argument: both machines are little-endian, and the kernel reads an int there."""
    return _step(_LOAD, _ARGUMENTS_AT + 8 * place + half)


def _step(operation: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, when_true, when_false, value)
