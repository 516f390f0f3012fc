"""Kill a process tree at any call that changes files below a folder, whichever library makes the call.

``disk_steps.c`` is compiled and loaded into a program with ``LD_PRELOAD``. It counts such calls (open for writing,
write, sync, rename, unlink, mkdir, …) in a control block that the program and its forks share, and kills the caller at
the call whose number was chosen: right before it, or after half of a write.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

_CONTROL = "DISK_STEPS"
_SIZE = 4096
_HEADER = struct.Struct("<iiqqii")
_FOLDER, _LAST = 2016, 512


def compiler() -> str | None:
    """The C compiler of this machine, if it has one."""
    return shutil.which("cc") or shutil.which("gcc")


def preloaded(place: Path) -> dict[str, str]:
    """The variables with which a program starts whose disk steps can be counted.

    Args:
        place: an empty folder for the library and the control block.
    """
    cc = compiler()
    assert cc is not None, "no C compiler"
    place.mkdir(parents=True, exist_ok=True)
    library, control = place / "disk_steps.so", place / "control"
    source = Path(__file__).with_name("disk_steps.c")
    subprocess.run([cc, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    control.write_bytes(bytes(_SIZE))
    return {"LD_PRELOAD": str(library), _CONTROL: str(control)}


class DiskSteps:
    """The control block, in a program that was started with :func:`preloaded`."""

    def __init__(self) -> None:
        with Path(os.environ[_CONTROL]).open("r+b") as file:
            self._block = mmap.mmap(file.fileno(), _SIZE)

    def arm(self, folder: Path, target: int | None, *, half: bool = False, group: bool = False) -> None:
        """Count the calls below a folder from now on, and kill at one of them.

        Args:
            folder: an absolute path.
            target: number of the fatal call, from 0; None to count only.
            half: if it is a write, write half before the kill.
            group: kill all processes of the caller's group, not the caller alone.
        """
        name = os.fsencode(folder)
        assert len(name) < _FOLDER and folder.is_absolute()
        self._block[:_SIZE] = bytes(_SIZE)
        self._block[_HEADER.size : _HEADER.size + len(name)] = name
        mode = 1 if target is None else 2
        self._block[: _HEADER.size] = _HEADER.pack(mode, half, 0, target or 0, group, len(name))

    def disarm(self) -> tuple[int, str]:
        """Stop counting; the number of calls, and the fatal call, if there was one."""
        count = _HEADER.unpack(self._block[: _HEADER.size])[2]
        begin = _HEADER.size + _FOLDER
        last = self._block[begin : begin + _LAST].split(b"\0", 1)[0].decode("utf-8", "replace")
        self._block[:4] = bytes(4)
        return count, last


__all__ = ["DiskSteps", "compiler", "preloaded"]
