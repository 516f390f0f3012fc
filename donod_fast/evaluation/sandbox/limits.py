"""Limits of a sandboxed program, and how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum

from donod_fast.errors import InputError

MIB = 1 << 20


class Isolation(StrEnum):
    """Kinds of isolation, best first."""

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    NONE = "none"
    """No isolation: the program can do whatever the user can. Limits apply, and its processes are killed at the end."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program, including everything that it starts.

    Raises:
        InputError: a limit is not positive.
    """

    seconds: float = 10.0
    """Wall time from the start to the end."""
    cpu_seconds: float | None = None
    """Processor time of each process; by default as much as the wall time on one core (whole seconds, rounded up)."""
    memory: int = 1024 * MIB
    """Bytes: the address space of each process, and what all processes together take from the machine.

    Counted are their pages and page tables, files in scratch, and what may wait in pipes and sockets; no other memory
    can be had. They are counted every few milliseconds, and what is taken in between can exceed the limit: a program
    is ended before it holds more than twice its limit (if that is 128 MiB or more).
    """
    processes: int = 16
    """Processes and threads alive at a time."""
    file_size: int = 16 * MIB
    """Maximum bytes of one file."""
    scratch: int = 64 * MIB
    """Bytes of all files in the scratch folder; they count as memory too."""
    output: int = 1 * MIB
    """Bytes of standard output and standard error together."""
    files: int = 4096
    """Files and folders in the scratch folder."""
    open_files: int = 64
    """Open descriptors of each process; all together may have as many pipes, which the kernel counts by user: beyond
    about 1,000 pipes of one user, new ones hold a page instead of 16."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"Limits: {field.name} must be a positive number, not {value!r}")

    @property
    def whole_cpu_seconds(self) -> int:
        """The limit on processor time in whole seconds, as the kernel expects it."""
        return math.ceil(self.seconds if self.cpu_seconds is None else self.cpu_seconds)


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    ``how`` is ``exited``, ``signalled`` (``code`` is then minus the signal's number), or the cause that ended it:
    ``timeout`` (wall or processor time), ``memory`` (all processes together; one alone gets a ``MemoryError``),
    ``output``, ``processes``, ``files`` (or pipes), ``killed`` (the caller). The monitor outside determines it; but the
    program chooses its own exit code, so the code proves nothing.
    """

    how: str
    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    peak_memory: int | None
    """Bytes: the highest observed use; at least some 10 MB for the launcher."""


class ChannelError(Exception):
    """The program did not answer properly. This is the program's fault, not an error of the library."""


class Timeout(ChannelError):
    """No complete frame was received (or sent) in time."""


class Ended(ChannelError):
    """The program closed the channel or has exited."""


class TooLarge(ChannelError):
    """The program announced a frame above the limit; the channel is no longer usable."""
