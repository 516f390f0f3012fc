"""The system call filter, call by call, on both machines: an interpreter of its language is the oracle."""

from __future__ import annotations

import errno
import random
import re
import struct
import subprocess
from itertools import product
from pathlib import Path

import pytest

from donod_fast.evaluation.sandbox.launch.calls import ALLOWED, CLONE3
from donod_fast.evaluation.sandbox.launch.filters import system_call_filter

MACHINES = ("x86_64", "aarch64")
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def verdict(program: bytes, number: int, audit: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel's interpreter would return for one call."""
    given = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=iIQ6Q", number, audit, 0, *(one % (1 << 64) for one in given))
    steps = list(struct.iter_unpack("=HBBI", program))
    place = held = 0
    while True:
        operation, when_true, when_false, value = steps[place]
        place += 1
        if operation == 0x20:
            (held,) = struct.unpack_from("=I", data, value)
        elif operation == 0x06:
            return value
        else:
            holds = {0x15: held == value, 0x25: held > value, 0x35: held >= value, 0x45: held & value != 0}[operation]
            place += when_true if holds else when_false


def refused(program: bytes, machine: str, name: str, *arguments: int) -> bool:
    number = ALLOWED[name][MACHINES.index(machine)]
    assert number is not None
    said = verdict(program, number, AUDIT[machine], arguments)
    assert said == ALLOW or said & 0xFFFF0000 == ERROR
    return said != ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_are_not_listed_are_refused(machine: str) -> None:
    program = system_call_filter(machine)
    listed = {both[MACHINES.index(machine)] for both in ALLOWED.values()}
    for number in (*range(700), 5000, (1 << 30) - 1):
        said = {verdict(program, number, AUDIT[machine], (one,) * 6) for one in (0, 1, 2, 0x5401, 1 << 40)}
        if number not in listed:
            assert said <= {ERROR | errno.EPERM, ERROR | errno.ENOSYS}, number
        elif number not in _with_conditions(machine):
            assert said == {ALLOW}, number
    assert verdict(program, CLONE3, AUDIT[machine]) == ERROR | errno.ENOSYS  # so that the C library uses clone


def _with_conditions(machine: str) -> set[int | None]:
    names = [
        "fcntl",
        "ioctl",
        "prctl",
        "socketpair",
        "prlimit64",
        "setrlimit",
        "sched_setaffinity",
        "clone",
        "mmap",
        "madvise",
        "setpriority",
        "sendto",
        "recvfrom",
        "getsockopt",
    ]
    return {ALLOWED[name][MACHINES.index(machine)] for name in names}


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_other_tables_end_the_program(machine: str) -> None:
    program = system_call_filter(machine)
    for audit in {0x40000003, 0x40000028, *AUDIT.values()} - {AUDIT[machine]}:
        assert {verdict(program, number, audit) for number in range(500)} == {KILL}
    if machine == "x86_64":
        assert {verdict(program, (1 << 30) + number, AUDIT[machine]) for number in range(600)} == {KILL}


@pytest.mark.parametrize("machine", MACHINES)
def test_memory_that_outlives_its_mapping_is_refused(machine: str) -> None:
    program = system_call_filter(machine)
    for shared, anonymous, huge, high in product((1, 2, 3), (0, 0x20), (0, 0x40000), (0, 0x4000, 0x10, 1 << 33)):
        flags = shared | anonymous | huge | high
        bad = bool(huge or (anonymous and shared & 1))
        assert refused(program, machine, "mmap", 0, 4096, 3, flags, -1, 0) == bad, hex(flags)


@pytest.mark.parametrize("machine", MACHINES)
def test_other_processes_and_limits_are_out_of_reach(machine: str) -> None:
    program = system_call_filter(machine)
    for other in (1, 2, 77, -1, 1 << 31):
        assert refused(program, machine, "prlimit64", other, 7, 0, 0)
        assert refused(program, machine, "sched_setaffinity", other, 8, 0)
        assert refused(program, machine, "setpriority", 0, other, 19)
    for which in (1, 2, 3):
        assert refused(program, machine, "setpriority", which, 0, 19)
    assert not refused(program, machine, "setpriority", 0, 0, 5)
    for kind, new in product(range(16), (0, 0x7F0000001000, 1 << 32, 4096)):
        assert refused(program, machine, "prlimit64", 0, kind, new, 0) == (kind == 4 and new != 0)
        assert refused(program, machine, "setrlimit", kind, new) == (kind == 4)


@pytest.mark.parametrize("machine", MACHINES)
def test_new_namespaces_and_locks_are_refused(machine: str) -> None:
    program = system_call_filter(machine)
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert refused(program, machine, "clone", flag | 17)
    assert not refused(program, machine, "clone", 0x3D0F00)  # a thread
    commands = random.Random(0).sample(range(1100), 200)
    for command in (*commands, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 36, 37, 38, *range(1024, 1050)):
        assert refused(program, machine, "fcntl", 3, command, 0) == (command not in (0, 1, 2, 3, 4, 1030, 1032))
    for family in range(50):
        assert refused(program, machine, "socketpair", family, 1, 0) == (family != 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_messages_are_sent_and_received_with_common_flags_only(machine: str) -> None:
    program = system_call_filter(machine)
    usual = (0x02, 0x20, 0x40, 0x80, 0x100, 0x4000, 0x8000, 0x40000000)
    for name, bit, other in product(("sendto", "recvfrom"), (1 << place for place in range(32)), (0, 0x40, 0x4040)):
        assert refused(program, machine, name, 3, 0, 1, bit | other) == (bit not in usual), hex(bit)
    for option in range(100):
        assert refused(program, machine, "getsockopt", 3, 1, option) == (option not in (2, 3, 4, 7, 8, 13, 30, 38, 39))


def test_numbers_are_those_of_the_kernels_tables() -> None:
    known = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not known.exists():
        pytest.skip("no headers of the kernel here")
    table = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", known.read_text())}
    newest = max(table.values())
    for name, (number, _) in ALLOWED.items():
        assert table.get(name, number) == number and (name in table or (number or 0) > newest), name
    wanted = "#define __ARCH_WANT_RENAMEAT\n#define __ARCH_WANT_SET_GET_RLIMIT\n#define __ARCH_WANT_NEW_STAT\n"
    text = f"{wanted}#define __BITS_PER_LONG 64\n#include <asm-generic/unistd.h>\n"
    try:
        done = subprocess.run(["cc", "-E", "-dM", "-"], input=text, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no preprocessor here")
    raw = dict(re.findall(r"#define (__NR\w*) (\S+)", done.stdout))
    newest = max(int(value) for value in raw.values() if value.isdigit())
    for name, (_, number) in ALLOWED.items():
        value = raw.get(f"__NR_{name}")
        while value in raw:
            value = raw[value]
        assert number == (int(value) if value else number), name
        assert value or number is None or number > newest, name
