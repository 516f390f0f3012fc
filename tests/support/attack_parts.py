"""What attacks have in common: their first lines, their limits, and what they count as achieved."""

from __future__ import annotations

from dataclasses import dataclass, field

from donod_fast.evaluation.sandbox import Finished

MIB = 1 << 20
MEMORY = 128 * MIB
"""The limit on memory under which the attacks on memory run."""

FACTOR = 2
"""A program may take this many times its limit on memory, all kinds of memory of the machine together."""

PRELUDE = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
ARM = os.uname().machine == "aarch64"

def say(text):
    os.write(1, (text + "\\n").encode())

def through(what):
    say("THROUGH " + str(what))

def held(size):
    say("HELD %d" % size)

def call(x86, arm, *given):
    "A system call by number; -1 if it fails, or is not there on this machine."
    number = arm if ARM else x86
    if number is None:
        return -1
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in given]
    return libc.syscall(ctypes.c_long(number), *given)

def attempt(what, action):
    try:
        done = action()
    except (OSError, ValueError, MemoryError, AttributeError):
        return False
    if isinstance(done, int) and done < 0:
        return False
    through(what)
    return True

def quietly(action):
    try:
        return action()
    except (OSError, ValueError, MemoryError):
        return None

def in_children(count, action):
    "The action in some processes, which then stay, as what they hold stays with them."
    for _ in range(count):
        try:
            if os.fork() == 0:
                try:
                    action()
                except BaseException:
                    pass
                time.sleep(100)
        except OSError:
            break

def others():
    "Processes that are not ours. Their numbers are tried even where nothing lists them."
    seen = {int(name) for name in os.listdir("/proc") if name.isdigit()} if os.path.isdir("/proc/self") else set()
    return sorted((seen | set(range(1, 30))) - {os.getpid()})
"""


@dataclass(frozen=True)
class Attack:
    """A program and the limits under which it runs.

    Attributes:
        text: the program, without :data:`PRELUDE`.
        limits: what differs from the sandbox's own limits.
        ends: whether it reaches its last line if the walls hold.
        holds: whether it may be ended by a limit.
    """

    text: str
    limits: dict[str, float] = field(default_factory=dict)
    ends: bool = True

    @property
    def program(self) -> str:
        """The whole program."""
        return f"{PRELUDE}\n{self.text}\nsay('END')\n"


def achieved(attack: Attack, done: Finished) -> list[str]:
    """What the attack did that it must not do."""
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    found = [line.removeprefix("THROUGH ") for line in lines if line.startswith("THROUGH ")]
    held = sum(int(line.split()[1]) for line in lines if line.startswith("HELD "))
    if held > FACTOR * attack.limits.get("memory", MEMORY):
        found.append(f"{held / MIB:.0f} MiB held under a limit of {attack.limits.get('memory', MEMORY) / MIB:.0f} MiB")
    if attack.ends and "END" not in lines:
        text = done.stderr.decode("utf-8", "replace").strip()[-300:]
        found.append(f"it did not reach its end: {done.how} {done.code} {text}")
    return found
