"""The system call filter, for gaps that namespaces and resource limits leave open.

There are three reasons to refuse a call: it allocates memory that no limit counts (memfd, System V shared memory,
message queues), it reaches outside in a way that namespaces do not prevent (vsock, keyrings), or it is attack surface
that a Python program never needs (nested namespaces, io_uring, bpf). A refused call fails with an error number, and the
program continues.
"""

from __future__ import annotations

import errno
import os
import struct

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERROR = 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data
_NEW_NAMESPACES = 0x7E020000
_FAMILIES = (
    1,
    2,
    10,
)  # AF_UNIX, AF_INET, AF_INET6: each of them is confined by the network namespace or the file system
_X32 = 0x40000000  # the second system call table of x86-64

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKETS = {"x86_64": (41, 53), "aarch64": (198, 199)}  # socket, socketpair
# fmt: off
_REFUSED = {
    "x86_64": (
        29, 30, 31, 67,  # shmget shmat shmctl shmdt
        64, 65, 66, 220, 68, 69, 70, 71, 240,  # semaphores and message queues of System V, mq_open
        319, 447,  # memfd_create memfd_secret
        101, 310, 311, 312, 438,  # ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd
        165, 166, 155, 161, 272, 308, 428, 429, 430, 431, 432, 433, 442,  # mounts, chroot, unshare, setns
        248, 249, 250, 321, 298, 323, 425, 426, 427,  # keyrings, bpf, perf, userfaultfd, io_uring
        303, 304, 300, 278, 103, 135, 154, 172, 173,  # file handles, fanotify, vmsplice, syslog, personality, ports
        246, 320, 175, 313, 176, 169, 167, 168, 163, 179, 212, 153,  # kexec, modules, reboot, swap, acct, quota, …
    ),
    "aarch64": (  # the same calls, line by line
        194, 195, 196, 197,
        190, 191, 192, 193, 186, 187, 188, 189, 180,
        279, 447,
        117, 270, 271, 272, 438,
        40, 39, 41, 51, 97, 268, 428, 429, 430, 431, 432, 433, 442,
        217, 218, 219, 280, 241, 282, 425, 426, 427,
        264, 265, 262, 75, 116, 92,
        104, 294, 105, 273, 106, 142, 224, 225, 89, 60, 18, 58,
    ),
}
# fmt: on
_CLONE3 = 435  # its flags are in memory, which a filter cannot read: the C library falls back to clone


def system_call_filter() -> bytes:
    """Build the filter for this machine as an array of ``struct sock_filter``.

    Raises:
        OSError: the machine's system call numbers are not known.
    """
    machine = os.uname().machine
    if machine not in _REFUSED:
        raise OSError(errno.ENOSYS, f"no system call filter is known for {machine} machines")
    refuse = _ERROR | errno.EPERM
    code = [
        _step(_LOAD, _MACHINE_AT),
        _step(_EQUAL, _AUDIT[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        *((_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)) if machine == "x86_64" else ()),
        *_when(_CLONE3, _ERROR | errno.ENOSYS),
    ]
    for number in _REFUSED[machine]:
        code += _when(number, refuse)
    code += [  # clone with flags that create a namespace
        _step(_EQUAL, _CLONE[machine], 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT_AT),
        _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _step(_RETURN, refuse),
        _step(_RETURN, _ALLOW),
    ]
    for number in _SOCKETS[machine]:
        code += [_step(_EQUAL, number, 0, 3 + len(_FAMILIES)), _step(_LOAD, _FIRST_ARGUMENT_AT)]
        code += [_step(_EQUAL, family, len(_FAMILIES) - place, 0) for place, family in enumerate(_FAMILIES)]
        code += [_step(_RETURN, _ERROR | errno.EAFNOSUPPORT), _step(_RETURN, _ALLOW)]
    code.append(_step(_RETURN, _ALLOW))
    return b"".join(code)


def _step(operation: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, when_true, when_false, value)


def _when(number: int, verdict: int) -> tuple[bytes, bytes]:
    return _step(_EQUAL, number, 0, 1), _step(_RETURN, verdict)
