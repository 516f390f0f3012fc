"""Files that match a pattern: each once, however links lead to it."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from donod_fast.errors import InputError

ANY_DEPTH = "**"
MOST_NAMES = 1_000_000
"""Most names that braces may stand for."""

_BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})(?:\.\.(\d{1,18}))?|([^{},]*(?:,[^{},]*)+))\}")


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


def expanded(pattern: str) -> list[str]:
    """The names that braces stand for: ``{000..010}`` and ``{0..10..5}`` for numbers, ``{a,b}`` for texts, in order.

    Raises:
        InputError: they stand for more than ``MOST_NAMES``.
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], expanded(pattern[found.end() :])
    choices = _choices(found)
    if len(choices) * len(after) > MOST_NAMES:
        raise InputError(f"{pattern}: the braces stand for {len(choices) * len(after):,} names; at most {MOST_NAMES:,}")
    return [before + choice + rest for choice in choices for rest in after]


def _choices(found: re.Match[str]) -> Sequence[str]:
    first, last, step, names = found.groups()
    if names is not None:
        return names.split(",")
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    begin, end = int(first), int(last)
    numbers = (
        range(begin, end + 1, int(step or 1) or 1) if begin <= end else range(begin, end - 1, -(int(step or 1) or 1))
    )
    if len(numbers) > MOST_NAMES:
        raise InputError(f"{found[0]}: the braces stand for {len(numbers):,} names; at most {MOST_NAMES:,}")
    return [f"{number:0{width}}" for number in numbers]


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
