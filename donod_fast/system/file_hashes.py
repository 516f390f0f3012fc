"""SHA-256 of large files that rarely change, remembered by path, size, times and inode.

A file of weights takes as long to hash as to read. Its hash is kept in the user's cache folder, so that the next run
need not compute it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

LARGE = 1 << 20
"""Smaller files are hashed each time."""

_MOST = 4096  # entries of the cache; the oldest are dropped
_SETTLED_NS = 2_000_000_000  # a file that was written just now may change again with the same time


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, in hex. A link is followed.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        stat = os.fstat(stream.fileno())
        if stat.st_size < LARGE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        key = str(file.resolve())
        facts = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
        known = _entries().get(key)
        if isinstance(known, list) and known[:-1] == facts and isinstance(known[-1], str):
            return known[-1]
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        after = os.fstat(stream.fileno())
    same = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) == (after.st_size, after.st_mtime_ns, after.st_ctime_ns)
    if same and time.time_ns() - stat.st_ctime_ns > _SETTLED_NS:
        _remember(key, [*facts, found])
    return found


def cache_file() -> Path:
    """The file of remembered hashes."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path("~/.cache").expanduser()) / "donod_fast" / "weights.json"


def _entries() -> dict[str, Any]:
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, RuntimeError):  # RuntimeError: there is no home folder
        return {}
    return found if isinstance(found, dict) else {}


def _remember(key: str, entry: list[Any]) -> None:
    """Write the cache, whole or not at all; a folder that cannot be written is no error."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        file = cache_file()
        entries = {**{name: one for name, one in _entries().items() if name != key}, key: entry}
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".weights-", dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(dict(list(entries.items())[-_MOST:]), stream)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


__all__ = ["LARGE", "cache_file", "sha256_of"]
