"""A folder of files in memory, with the interface of a folder on a disk: for scores that are not kept."""

from __future__ import annotations

import fnmatch
import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from donod_fast.system.storage import FileFacts


class MemoryStorage:
    """Files in memory; they live as long as the object. It implements ``storage.Storage``.

    Args:
        name: what messages call the folder.
    """

    local: Path | None = None

    def __init__(self, name: str = "scores in memory") -> None:
        self.name = name
        self._files: dict[str, tuple[bytes, float]] = {}

    def make(self) -> None:
        """The folder exists always."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""
        return self._file(name)[0]

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Raises FileNotFoundError."""
        return io.BytesIO(self.read(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        self._files[name] = (content, time.time())

    def create(self, name: str, content: bytes) -> bool:
        """Write a new file; return False if it exists."""
        if name in self._files:
            return False
        self.write(name, content)
        return True

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        return name in self._files

    def existing(self, names: Iterable[str]) -> set[str]:
        """Which of these files exist."""
        return self._files.keys() & set(names)

    def names(self, pattern: str) -> list[str]:
        """Names of the files that match a shell pattern, sorted."""
        return sorted(fnmatch.filter(tuple(self._files), pattern))

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        self._files.pop(name, None)

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970. Raises FileNotFoundError."""
        return self._file(name)[1]

    def age(self, name: str) -> float:
        """Seconds since a file was written. Raises FileNotFoundError."""
        return max(0.0, time.time() - self.modified(name))

    def facts(self, pattern: str) -> dict[str, FileFacts]:
        """When the files that match a shell pattern were written, by name; without marks."""
        return {name: FileFacts(self._files[name][1], "") for name in self.names(pattern)}

    def url(self, name: str) -> str:
        """What messages call a file."""
        return f"{name} of {self.name}"

    def _file(self, name: str) -> tuple[bytes, float]:
        try:
            return self._files[name]
        except KeyError:
            raise FileNotFoundError(2, "No such file", self.url(name)) from None


__all__ = ["MemoryStorage"]
