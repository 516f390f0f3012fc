"""Files that match a pattern: each once, however links lead to it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

ANY_DEPTH = "**"


def matching_files(pattern: str) -> list[str]:
    """Paths of the regular files that match a shell pattern, sorted; ``**`` stands for folders at any depth.

    Hidden names match only patterns that begin with a point. A folder that several paths lead to, as a link to a folder
    above it makes, is searched once, by its shortest path.
    """
    # glob.glob instead of Path.glob: it accepts absolute patterns and skips hidden files.
    found: dict[tuple[str, str], str] = {}
    for match in sorted(_matches(pattern), key=lambda path: (path.count("/"), path)):
        folder, name = os.path.split(match)
        key = (os.path.realpath(folder), name) if ANY_DEPTH in pattern else ("", match)
        if key not in found and Path(match).is_file():
            found[key] = match
    return sorted(found.values())


def _matches(pattern: str) -> list[str]:
    parts = pattern.split("/")
    if ANY_DEPTH not in parts:
        return glob.glob(pattern)  # noqa: PTH207
    at = parts.index(ANY_DEPTH)
    head, rest = "/".join(parts[:at]), "/".join(parts[at + 1 :]) or "*"
    if head:
        roots = sorted(glob.glob(head), key=lambda path: (path.count("/"), path))  # noqa: PTH207
    else:
        roots = ["/" if pattern.startswith("/") else ""]
    matches: list[str] = []
    for folder in _folders(roots):
        matches += _matches(_joined(glob.escape(folder), rest))
    return matches


def _joined(folder: str, name: str) -> str:
    return folder + name if folder in ("", "/") else f"{folder}/{name}"


def _folders(roots: list[str]) -> Iterator[str]:
    """The folders and all within them, nearest first, each once."""
    seen: set[tuple[int, int]] = set()
    level = roots
    while level:
        following: list[str] = []
        for folder in level:
            try:
                facts = Path(folder).stat()
                if (facts.st_dev, facts.st_ino) in seen:
                    continue
                with os.scandir(folder or os.curdir) as entries:
                    inner = sorted(one.name for one in entries if not one.name.startswith(".") and one.is_dir())
            except OSError:  # not a folder, or not ours to read
                continue
            seen.add((facts.st_dev, facts.st_ino))
            yield folder
            following += [_joined(folder, name) for name in inner]
        level = following


__all__ = ["matching_files"]
