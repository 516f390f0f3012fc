"""Storage of a scores folder: a folder on a disk, or a prefix in an object store. Each file is complete or absent.

On a disk a file is written under another name, synced and renamed; on an object store it is one PUT. Calls to an object
store are retried after temporary errors (``retrying.py``).
"""

from __future__ import annotations

import fnmatch
import io
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from donod_fast.confidential import hide, reveal
from donod_fast.errors import InputError, StoreError
from donod_fast.system import places
from donod_fast.system.files import atomic_writer, open_regular, read_regular, remove, storage_error
from donod_fast.system.hub_urls import is_hub_url
from donod_fast.system.retrying import as_os_error, retrying


class Storage(Protocol):
    """A folder of files.

    Attributes:
        name: the folder as the user gave it.
        local: its path if it is on a disk, else None.
    """

    name: str
    local: Path | None

    def make(self) -> None:
        """Create the folder if it does not exist. Raises StoreError."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError, or another OSError."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, seekable. Raises FileNotFoundError, or another OSError."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically; after this returns, the file survives a crash. Raises StoreError."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a new file; return False if it exists. Raises StoreError."""

    def exists(self, name: str) -> bool:
        """Whether the file exists."""

    def names(self, pattern: str) -> list[str]:
        """Names of the files that match a shell pattern, sorted."""

    def remove(self, name: str) -> None:
        """Delete a file if it exists. Raises StoreError."""

    def modified(self, name: str) -> float:
        """Modification time of a file in seconds since 1970. Raises FileNotFoundError."""

    def times(self, pattern: str) -> dict[str, float]:
        """Modification times of all files that match a shell pattern, by name; see :meth:`modified`."""

    def url(self, name: str) -> str:
        """A file's path or URL."""


def is_url(place: str | Path) -> bool:
    """Whether a place is given as a URL (``s3://…``) and not as a path."""
    return isinstance(place, str) and places.is_url(place)


def open_storage(place: str | Path | Storage) -> Storage:
    """Open the storage of a folder; an open one is returned as it is.

    Raises:
        StoreError: no file system supports the URL, or its package is not installed; or the name is empty, which would
            be the current folder (``--out "$UNSET"``).
        InputError: it is no name at all.
    """
    if not isinstance(place, str | Path):
        if not hasattr(place, "local"):
            raise InputError(f"a folder is named by a text or a path, got {place!r}")
        return place
    if place == "":
        raise StoreError("the name of the folder is empty; name one, or . for the current folder")
    path = places.local_path(place) if isinstance(place, str) else place
    return ObjectStorage(str(place)) if path is None else LocalStorage(path)


class LocalStorage:
    """A folder on a disk."""

    def __init__(self, path: Path) -> None:
        self.local: Path | None = path
        self._path = path
        self.name = str(path)

    def make(self) -> None:
        """Create the folder."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self._path, error) from error

    def read(self, name: str) -> bytes:
        """A file's content."""
        return read_regular(self._path / name)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return open_regular(self._path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write, sync, rename, sync the folder."""
        with atomic_writer(self._path / name) as file:
            file.write(content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a new file."""
        try:
            with (self._path / name).open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        except OSError as error:
            raise storage_error(self._path / name, error) from error
        return True

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        return (self._path / name).exists()

    def names(self, pattern: str) -> list[str]:
        """Names of matching files."""
        return sorted(path.name for path in self._path.glob(pattern))

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        remove(self._path / name)

    def modified(self, name: str) -> float:
        """Modification time of a file."""
        return (self._path / name).stat().st_mtime

    def times(self, pattern: str) -> dict[str, float]:
        """Modification times of matching files."""
        found = {}
        for path in self._path.glob(pattern):
            with suppress(FileNotFoundError):  # another process removed it
                found[path.name] = path.stat().st_mtime
        return found

    def url(self, name: str) -> str:
        """A file's path."""
        return str(self._path / name)


class ObjectStorage:
    """A prefix in an object store that fsspec supports."""

    local: Path | None = None

    def __init__(self, url: str) -> None:
        import fsspec

        self.name = hide(url.rstrip("/"))
        if is_hub_url(self.name):
            raise StoreError(
                f"{self.name}: a scores folder cannot be on the hub, where each part would be a commit and nothing "
                "keeps two processes apart; use a disk or an object store (s3://…), and upload the export: hf upload"
            )
        whole = reveal(self.name)
        if whole is None:
            raise StoreError(f"{self.name}: {places.UNKNOWN_SECRET}")
        try:
            self._files, self._root = fsspec.core.url_to_fs(whole)
        except (ImportError, ValueError, OSError) as error:
            raise StoreError(
                f"{url}: {error}; install the package for this object store (for s3://: pip install 'donod-fast[s3]')"
            ) from error

    def make(self) -> None:
        """Create the folder in stores that imitate folders; elsewhere a prefix needs no creation."""
        self._changing(lambda: self._files.makedirs(self._root, exist_ok=True), self.name)

    def read(self, name: str) -> bytes:
        """A file's content."""
        content: bytes = retrying(lambda: self._files.cat_file(self._at(name)), f"reading {self.url(name)}")
        return content

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; its content is in memory, since parts are small."""
        return io.BytesIO(self.read(name))

    def write(self, name: str, content: bytes) -> None:
        """One PUT."""
        self._changing(lambda: self._files.pipe_file(self._at(name), content), self.url(name))
        self._files.invalidate_cache(self._root)

    def create(self, name: str, content: bytes) -> bool:
        """A conditional PUT that fails if the file exists, if the store supports it."""
        try:
            self._files.pipe_file(self._at(name), content, mode="create")
        except FileExistsError:
            return False
        except (TypeError, ValueError, NotImplementedError):  # the store has no conditional PUT: check, then write
            if self.exists(name):
                return False
            self.write(name, content)
        except Exception as caught:  # clients of stores have errors of their own
            error = as_os_error(caught, f"creating {self.url(name)}")
            if not isinstance(error, OSError):
                raise
            if "recondition" in str(error) or "exists" in str(error).lower():
                return False
            raise _object_error(self.url(name), error) from caught
        self._files.invalidate_cache(self._root)
        return True

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        self._files.invalidate_cache(self._root)
        return bool(retrying(lambda: self._files.exists(self._at(name)), f"looking for {self.url(name)}"))

    def names(self, pattern: str) -> list[str]:
        """Names of matching files."""
        self._files.invalidate_cache(self._root)
        try:
            found = retrying(lambda: self._files.ls(self._root, detail=False), f"listing {self.name}")
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        with suppress(FileNotFoundError):
            self._changing(lambda: self._files.rm_file(self._at(name)), self.url(name))
        self._files.invalidate_cache(self._root)

    def modified(self, name: str) -> float:
        """Modification time of a file."""
        return float(retrying(lambda: self._files.modified(self._at(name)), self.url(name)).timestamp())

    def times(self, pattern: str) -> dict[str, float]:
        """Modification times of matching files."""
        return {name: self.modified(name) for name in self.names(pattern)}

    def url(self, name: str) -> str:
        """A file's URL."""
        return f"{self.name}/{name}"

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _changing(self, call: Any, what: str) -> None:
        try:
            retrying(call, f"writing {what}")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _object_error(what, error) from error


def _object_error(what: str, error: OSError) -> StoreError:
    return StoreError(f"cannot write {what}: {error}")


__all__ = ["LocalStorage", "ObjectStorage", "Storage", "is_url", "open_storage"]
