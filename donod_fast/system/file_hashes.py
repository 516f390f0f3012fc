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

from donod_fast.system.files import open_regular

LARGE = 1 << 20
"""Smaller files are hashed each time."""

_MOST = 4096  # entries of the cache; the oldest are dropped
_MOST_BYTES = 64 << 20  # of the cache; a larger one is not ours
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
        if isinstance(known, list) and len(known) == len(facts) + 2 and known == _entry(key, facts, str(known[-2])):
            return str(known[-2])
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        after = os.fstat(stream.fileno())
    same = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) == (after.st_size, after.st_mtime_ns, after.st_ctime_ns)
    if same and time.time_ns() - stat.st_ctime_ns > _SETTLED_NS:
        _remember(key, _entry(key, facts, found))
    return found


def _entry(key: str, facts: list[int], found: str) -> list[Any]:
    """An entry of the cache, with a checksum: a flipped digit would be taken for another model."""
    entry = [*facts, found]
    return [*entry, hashlib.sha256(json.dumps([key, *entry]).encode()).hexdigest()[:16]]


def cache_folder() -> Path:
    """The package's folder in the user's cache. Raises RuntimeError: there is no home folder."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path("~/.cache").expanduser()) / "donod_fast"


def cache_file() -> Path:
    """The file of remembered hashes."""
    return cache_folder() / "weights.json"


def _entries() -> dict[str, Any]:
    try:
        with open_regular(cache_file()) as file:  # a pipe would be waited for
            content = file.read(_MOST_BYTES + 1)
        found = json.loads(content) if len(content) <= _MOST_BYTES else None
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


__all__ = ["LARGE", "cache_file", "cache_folder", "sha256_of"]
