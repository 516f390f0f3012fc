"""Errors of the machine that reach the edge: a full disk, no memory, no descriptors, a folder that has gone.

Code that knows what it was doing raises an error of its own. What is left are errors of the operating system out of
libraries, which no bad argument and no bug of ours causes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from donod_fast.confidential import without_secrets
from donod_fast.errors import DonodError, InputError, StoreError, WorkerError
from donod_fast.system.files import DISK_REMEDIES

_NO_MEMORY = (
    "out of memory",
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "failed to map segment",
    "unable to mmap",
    "can't start new thread",
    "resource temporarily unavailable",
    "malloc of size",
    "realloc of size",
    "memory allocation of",
)
_KINDS = (OSError, RuntimeError, ImportError, SystemError)
"""Built-in errors whose text is a library's; those of a bug of ours are of other kinds."""

_NO_DESCRIPTORS = ("too many open files", "os error 24")
_NO_SPACE = ("no space left on device", "os error 28", "file too large", "disk quota exceeded")
_REMEDIES = {**DISK_REMEDIES, errno.EACCES: "permission denied", errno.EPERM: "permission denied"}


def error_of_surroundings(error: BaseException) -> DonodError | None:
    """The error to report for one that is not ours, if the machine caused it or caused its cause; else None."""
    for one in _chain(error):
        found = _known(one)
        if found is not None:
            return found
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _known(error: BaseException) -> DonodError | None:
    text = without_secrets(str(error))
    lower, detail = text.lower(), _in_brackets(text)
    number = error.errno if isinstance(error, OSError) else None
    is_library = isinstance(error, _KINDS) or type(error).__module__ != "builtins"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or (is_library and _has(lower, _NO_MEMORY)):
        return WorkerError(f"memory ran out{detail}; raise the limit (ulimit -v) or free some, and run again")
    if number in (errno.EMFILE, errno.ENFILE) or (is_library and _has(lower, _NO_DESCRIPTORS)):
        return WorkerError(f"too many files are open{detail}; raise the limit (ulimit -n 4096), and run again")
    if is_library and number not in _REMEDIES and _has(lower, _NO_SPACE):
        return StoreError(f"{_REMEDIES[errno.ENOSPC]}{detail}")
    if not isinstance(error, OSError):
        return None
    if _working_folder_has_gone():
        return InputError("the working directory has been removed: change to one that exists, and run again")
    if isinstance(error, FileNotFoundError) and "temporary directory" in text:
        return StoreError("no temporary folder can be written: set TMPDIR to one that can, and run again")
    if number is None:
        return None
    name = error.filename
    place = "" if name is None else f"{os.fsdecode(name) if isinstance(name, (str, bytes)) else name}: "
    return StoreError(place + _REMEDIES.get(number, error.strerror or text))


def _has(text: str, signs: tuple[str, ...]) -> bool:
    return any(sign in text for sign in signs)


def _in_brackets(text: str) -> str:
    first = text.strip().split("\n")[0][:200]
    return f" ({first})" if first else ""


def _working_folder_has_gone() -> bool:
    try:
        Path.cwd()
    except OSError:
        return True
    return False


__all__ = ["error_of_surroundings"]
