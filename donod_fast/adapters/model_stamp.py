"""A stamp of a model's folder, for hosts that find the result of an earlier run by the settings of its steps."""

from __future__ import annotations

import hashlib
from pathlib import Path


def model_stamp(model: str) -> str:
    """Names, sizes and times of the files of a model's folder as a hash; empty if it is no folder here.

    A host that caches by settings sees the same path when the model in it has changed, and would give the scores of
    the earlier one. The stamp changes with the files; it reads none of them.
    """
    folder = Path(model)
    if not folder.is_dir():
        return ""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            stat = file.stat()
            found.append((str(file.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


__all__ = ["model_stamp"]
