"""Temporary folders that never outlive their use: removed at the end, or by the next run if their process was killed.

A temporary folder holds a file that its process locks. The kernel drops the lock when the process ends, however it
ends. A folder whose lock is free is litter. Nothing depends on process numbers, which containers reuse, nor on clocks.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

# On Windows nothing is removed but by the process itself.
fcntl: Any = import_module("fcntl") if os.name == "posix" else None

_PREFIX = "donod-fast-run-"
_LOCK = ".lock"
_TRIES = 100


def lock_descriptor(descriptor: int) -> bool:
    """Lock an open file for this process, without waiting; False if another process holds it.

    Where a file system has no locks, the file counts as held by this process.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def is_abandoned(path: Path) -> bool:
    """Whether the file of this path is of this user, and no process holds its lock. Links are never followed."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(found, os.lstat(path))
    except OSError:  # held, or the file system has no locks
        return False
    finally:
        os.close(descriptor)


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder ``prefix…`` in ``parent`` for the time of a block; folders that killed processes left are removed.

    Args:
        parent: an existing folder.
        prefix: beginning of its name, which no other kind of file has.

    Raises:
        OSError: it cannot be made.
    """
    remove_abandoned(parent, prefix)
    folder, descriptor = _locked_folder(parent, prefix)
    try:
        yield folder
    finally:
        _removed(folder, descriptor)


def _removed(folder: Path, descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)  # first: where descriptors are few, removing a folder needs this one
    _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    """Remove a temporary folder, its lock last: what a kill leaves is still known as litter. Errors are ignored."""
    with suppress(OSError):
        with os.scandir(folder) as entries:
            found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_folder in found:
            if is_folder:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                with suppress(OSError):
                    path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        descriptor = None
        try:
            lock = folder / _LOCK
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Another process may have taken the folder for litter before it was locked.
            if lock_descriptor(descriptor) and os.path.samestat(os.fstat(descriptor), os.lstat(lock)):
                return folder, descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if descriptor is not None:
            os.close(descriptor)
    raise OSError(errno.EBUSY, "its temporary folders are removed at once", str(parent))


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove temporary folders of this user in ``parent`` whose process has ended. Errors are ignored."""
    try:
        with os.scandir(parent) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.startswith(prefix)]
    except OSError:
        return
    for folder in found:
        with suppress(OSError):
            facts = folder.lstat()
            if not stat.S_ISDIR(facts.st_mode) or not hasattr(os, "geteuid") or facts.st_uid != os.geteuid():
                continue
            if is_abandoned(folder / _LOCK):
                _remove_folder(folder)
            elif not (folder / _LOCK).exists():
                folder.rmdir()  # it succeeds only if its process was killed right after making or emptying it


def use_own_temporary_folder() -> None:
    """Have every temporary file of this process, of libraries too, be in one folder that is removed at its end.

    A second call changes nothing. Call it before libraries register what they do at exit, since it must be done last.
    Without any writable temporary folder nothing changes, and what needs one says so.
    """
    if fcntl is None or (tempfile.tempdir or "").find(_PREFIX) >= 0:
        return
    try:
        parent = Path(tempfile.gettempdir())
        remove_abandoned(parent, _PREFIX)
        folder, descriptor = _locked_folder(parent, _PREFIX)
    except OSError:
        return
    # A cache is no litter: it stays where it would be without this folder.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(parent / f"torchinductor_{_user()}"))
    tempfile.tempdir = str(folder)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a fork
            tempfile.tempdir = None
            _removed(folder, descriptor)

    atexit.register(remove)


def _user() -> str:
    import getpass

    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError):
        return str(os.getuid())


__all__ = ["is_abandoned", "lock_descriptor", "remove_abandoned", "scratch_folder", "use_own_temporary_folder"]
