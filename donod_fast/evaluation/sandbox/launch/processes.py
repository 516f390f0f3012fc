"""Inspect a sandbox from outside: its processes, and the memory that they take from the machine."""

from __future__ import annotations

import contextlib
import os

from . import system

_PAGE_OF_A_PIPE = 4096
_PIPE = 16 * _PAGE_OF_A_PIPE  # bytes that a pipe may hold; the filter keeps programs from making it larger
_KIB = 1024


def members(root: int) -> dict[int, list[int]]:
    """All descendants of ``root`` (without itself), with the numbers of their threads.

    Orphans are adopted by the first process of their namespace (or by a subreaper), so none escapes.
    """
    found: dict[int, list[int]] = {}
    waiting = [root]
    while waiting:
        process = waiting.pop()
        try:
            threads = [int(name) for name in os.listdir(f"/proc/{process}/task")]  # noqa: PTH208  (pathlib is slow to import)
        except OSError:  # ended meanwhile
            found.pop(process, None)
            continue
        if process != root:
            found[process] = threads
        for thread in threads:
            children = [int(number) for number in _read(f"/proc/{process}/task/{thread}/children").split()]
            waiting += [child for child in children if child not in found]
    return found


class Held:
    """What processes hold: pages, page tables, swapped pages, and what waits in pipes and sockets."""

    def __init__(self, processes: dict[int, list[int]], socket: int, open_files: int) -> None:
        """Look at the processes.

        Args:
            processes: what :func:`members` found.
            socket: bytes that may wait in a socket.
            open_files: descriptors that a process may have; a process that hides them is taken to have as many sockets.
        """
        # A process whose first thread has ended shows its memory only by another thread.
        self._states = [state for threads in processes.values() if (state := _first_state(threads))]
        links: set[str] = set()
        sockets = 0
        for thread in (thread for threads in processes.values() for thread in threads):
            try:
                links.update(_open(thread))
            except PermissionError:  # it executes a file that nobody may read
                sockets += open_files
            except OSError:  # ended meanwhile
                continue
        self.pipes = sum(link.startswith("pipe:") for link in links)
        sockets += sum(link.startswith("socket:") for link in links)
        self._waiting = self.pipes * _PIPE + sockets * socket

    def most(self) -> int:
        """Bytes, at most: pages that processes share count for each of them."""
        return self._waiting + sum(sum(state.values()) for _, state in self._states)

    def shared(self) -> int:
        """Bytes, with shared pages divided among their users, and without those of files in memory."""
        kept: list[tuple[int, dict[str, int]]] = []
        for thread, state in self._states:
            # A process that is about to execute another program has no memory of its own, but its parent's.
            if not any(system.share_memory(thread, other) for other, _ in kept):
                kept.append((thread, state))
        return self._waiting + sum(_share(thread, state) for thread, state in kept)


def scratch(process: list[int], folder: str) -> int | None:
    """A descriptor of the scratch folder that the threads of a process see, or ``None`` if it cannot be had."""
    for thread in process:
        with contextlib.suppress(OSError):
            return os.open(f"/proc/{thread}/root{folder}", os.O_RDONLY | os.O_DIRECTORY)
    return None


def usage(folder: int) -> tuple[int, int]:
    """Bytes and number of files in the file system of a folder's descriptor."""
    state = os.fstatvfs(folder)
    return (state.f_blocks - state.f_bfree) * state.f_frsize, state.f_files - state.f_ffree


def waiting_in_a_socket() -> int:
    """Bytes that may wait in a socket of this machine, unless its owner changes that (the filter forbids it)."""
    text = _read("/proc/sys/net/core/wmem_default")
    return int(text) if text.strip().isdigit() else 212992


def _first_state(threads: list[int]) -> tuple[int, dict[str, int]] | None:
    for thread in threads:
        state = _fields(f"/proc/{thread}/status", (b"VmRSS", b"VmPTE", b"VmSwap"))
        if state:
            return thread, state
    return None


def _share(thread: int, state: dict[str, int]) -> int:
    shares = _fields(f"/proc/{thread}/smaps_rollup", (b"Pss", b"Pss_Shmem", b"SwapPss"))
    if not shares:  # it has exited (then this is 0), or the kernel does not report it
        return sum(_fields(f"/proc/{thread}/status", (b"VmRSS", b"VmPTE", b"VmSwap")).values())
    return shares["Pss"] - shares.get("Pss_Shmem", 0) + shares.get("SwapPss", 0) + state.get("VmPTE", 0)


def _fields(path: str, wanted: tuple[bytes, ...]) -> dict[str, int]:
    """Fields of a file of ``name: number kB`` lines, in bytes."""
    found = {}
    for line in _read(path).splitlines():
        name, _, value = line.partition(b":")
        if name in wanted:
            found[name.decode()] = int(value.split()[0]) * _KIB
    return found


def _open(thread: int) -> list[str]:
    links = []
    folder = f"/proc/{thread}/fd"
    for name in os.listdir(folder):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"{folder}/{name}"))  # noqa: PTH115
    return links


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        text = b""
        while part := os.read(descriptor, 1 << 16):
            text += part
        return text
    except OSError:
        return b""
    finally:
        os.close(descriptor)
