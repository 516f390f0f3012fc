"""Inspect a sandbox from outside: number of processes, memory, number of files."""

from __future__ import annotations

import contextlib
import os

_PAGE = os.sysconf("SC_PAGE_SIZE")


def members(root: int) -> dict[int, int]:
    """All descendants of ``root`` (without itself), with their numbers of threads.

    Orphans are adopted by the first process of their namespace (or by a subreaper), so none escapes.
    """
    found: dict[int, int] = {}
    waiting = [root]
    while waiting:
        process = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{process}/task")  # noqa: PTH208  (pathlib is slow to import)
        except OSError:  # ended meanwhile
            found.pop(process, None)
            continue
        if process != root:
            found[process] = len(threads)
        for thread in threads:
            children = [int(number) for number in _read(f"/proc/{process}/task/{thread}/children").split()]
            waiting += [child for child in children if child not in found]
    return found


def memory(processes: dict[int, int], limit: int) -> int:
    """Total memory of the processes in bytes; shared pages are divided among their users if this matters."""
    held = sum(map(_resident, processes))
    if held <= limit or len(processes) == 1:
        return held
    return sum(map(_share, processes))


def files(process: int, scratch: str) -> int:
    """Number of files and folders in the scratch folder's file system (0 if it cannot be read)."""
    with contextlib.suppress(OSError):
        state = os.statvfs(f"/proc/{process}/root{scratch}")
        return state.f_files - state.f_ffree
    return 0


def _resident(process: int) -> int:
    fields = _read(f"/proc/{process}/statm").split()
    return int(fields[1]) * _PAGE if len(fields) > 1 else 0


def _share(process: int) -> int:
    for line in _read(f"/proc/{process}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return _resident(process)  # it has exited (then this is 0), or the kernel does not report it


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
