"""Storage of a scores folder: a folder on a disk, or a prefix in an object store. Each file is complete or absent.

On a disk a file is written under another name, synced and renamed; on an object store it is one PUT. Calls to an object
store are retried after temporary errors (``retrying.py``).

Ask for a file by its name, and the answer is true. What a *listing* of an object store says is a hint: it may lack
files that were written just now, and still have files that were removed.
"""

from __future__ import annotations

import fnmatch
import io
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from donod_fast.confidential import hide, reveal
from donod_fast.errors import InputError, StoreError, UnreachableError
from donod_fast.system import places
from donod_fast.system.files import atomic_writer, open_regular, read_regular, remove, storage_error
from donod_fast.system.hub_urls import is_hub_url
from donod_fast.system.retrying import GaveUpError, retrying

_ASKING = 16  # requests at once: a store answers slowly, but answers many in parallel
_LARGEST_PUT = 5 << 30  # bytes; s3fs would write more than 100 MB in several requests

_AGAIN = "; run the same command again when the store answers"
_RENEW = "; renew or correct the credentials for the store, and run the same command again"
_OTHERWISE = "; if the credentials have expired, renew them; then run the same command again"
_SET_CLOCK = "; set the clock of this machine, and run the same command again"
_OTHER_TIME = ("RequestTimeTooSkewed", "RequestExpired", "current time is too large")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a listing says about a file.

    Attributes:
        modified: modification time in seconds since 1970.
        mark: a text that another one replaces when the content changes: size, times and identity of a file on a disk,
            size and ETag of an object; empty if the storage knows no such thing.
    """

    modified: float
    mark: str


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
        """Whether the file exists. Raises UnreachableError: the store does not say."""

    def existing(self, names: Iterable[str]) -> set[str]:
        """Which of these files exist; as :meth:`exists`, of many files."""

    def names(self, pattern: str) -> list[str]:
        """Names of the files that match a shell pattern, sorted. On an object store a hint: see the module."""

    def remove(self, name: str) -> None:
        """Delete a file if it exists. Raises StoreError."""

    def modified(self, name: str) -> float:
        """Modification time of a file in seconds since 1970. Raises FileNotFoundError."""

    def age(self, name: str) -> float:
        """Seconds since a file was written, by the clock that stamped it. Raises FileNotFoundError."""

    def facts(self, pattern: str) -> dict[str, FileFacts]:
        """What one listing says about all files that match a shell pattern, by name."""

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

    def existing(self, names: Iterable[str]) -> set[str]:
        """Which of these files exist, from one listing."""
        return {path.name for path in self._path.glob("*")}.intersection(names)

    def names(self, pattern: str) -> list[str]:
        """Names of matching files."""
        return sorted(path.name for path in self._path.glob(pattern))

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        remove(self._path / name)

    def modified(self, name: str) -> float:
        """Modification time of a file."""
        return (self._path / name).stat().st_mtime

    def age(self, name: str) -> float:
        """Seconds since a file was written."""
        return max(0.0, time.time() - self.modified(name))

    def facts(self, pattern: str) -> dict[str, FileFacts]:
        """Facts about matching files."""
        found: dict[str, FileFacts] = {}
        with suppress(FileNotFoundError), os.scandir(self._path) as entries:
            for entry in entries:
                if fnmatch.fnmatchcase(entry.name, pattern):
                    with suppress(FileNotFoundError):  # another process removed it
                        now = entry.stat()
                        mark = f"{now.st_size}-{now.st_mtime_ns}-{now.st_ctime_ns}-{now.st_ino}"
                        found[entry.name] = FileFacts(now.st_mtime, mark)
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
            # Without its cache of listings: s3fs takes a file that a cached listing lacks for absent.
            self._files, self._root = fsspec.core.url_to_fs(whole, use_listings_cache=False)
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
        self._changing(lambda: self._put(name, content), self.url(name))
        self._files.invalidate_cache(self._root)

    def create(self, name: str, content: bytes) -> bool:
        """A conditional PUT that fails if the file exists, if the store supports it.

        A PUT whose answer was lost is repeated, and then the file exists: with this content it counts as created.
        """
        try:
            retrying(lambda: self._put(name, content, mode="create"), f"creating {self.url(name)}")
        except (TypeError, ValueError, NotImplementedError):  # the store has no conditional PUT: check, then write
            if self.exists(name):
                return False
            self.write(name, content)
        except OSError as error:
            there = isinstance(error, FileExistsError) or "recondition" in str(error) or "exists" in str(error).lower()
            if not there:
                raise _object_error(self.url(name), error) from error
            with suppress(FileNotFoundError):
                return self._asking(lambda: self.read(name), self.url(name)) == content
            return False
        self._files.invalidate_cache(self._root)
        return True

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        self._files.invalidate_cache(self._root)
        what = f"looking for {self.url(name)}"
        return self._asking(lambda: bool(retrying(lambda: self._files.exists(self._at(name)), what)), self.url(name))

    def existing(self, names: Iterable[str]) -> set[str]:
        """Which of these files exist: the store is asked for each, several at once."""
        wanted = list(names)
        if len(wanted) < 2:
            return set(filter(self.exists, wanted))
        with ThreadPoolExecutor(_ASKING) as pool:
            return {name for name, there in zip(wanted, pool.map(self.exists, wanted), strict=True) if there}

    def names(self, pattern: str) -> list[str]:
        """Names of matching files."""
        found = self._listing(detail=False)
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        with suppress(FileNotFoundError):
            self._changing(lambda: self._files.rm_file(self._at(name)), self.url(name))
        self._files.invalidate_cache(self._root)

    def modified(self, name: str) -> float:
        """Modification time of a file."""
        url = self.url(name)
        found = self._asking(lambda: retrying(lambda: self._files.modified(self._at(name)), f"looking at {url}"), url)
        return float(found.timestamp())

    def age(self, name: str) -> float:
        """Seconds since a file was written: on S3 by the store's clock, elsewhere by that of this machine."""
        asked = getattr(self._files, "call_s3", None)
        if asked is None:
            return max(0.0, time.time() - self.modified(name))
        bucket, key, _ = self._files.split_path(self._at(name))
        what = f"looking at {self.url(name)}"
        head = self._asking(
            lambda: retrying(lambda: asked("head_object", Bucket=bucket, Key=key), what), self.url(name)
        )
        date = head["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = time.time() if date is None else parsedate_to_datetime(date).timestamp()
        return max(0.0, now - float(head["LastModified"].timestamp()))

    def facts(self, pattern: str) -> dict[str, FileFacts]:
        """Facts about matching files, from one listing, which may lag; no mark where the store gives no ETag."""
        found = self._listing(detail=True)
        named = ((str(entry["name"]).rstrip("/").rpartition("/")[2], entry) for entry in found)
        return {name: _facts_of(entry) for name, entry in named if fnmatch.fnmatchcase(name, pattern)}

    def url(self, name: str) -> str:
        """A file's URL."""
        return f"{self.name}/{name}"

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _listing(self, *, detail: bool) -> list[Any]:
        """What the store lists in the folder now: paths, or with ``detail`` what it says about each file."""
        self._files.invalidate_cache(self._root)

        def listed() -> list[Any]:
            try:
                return list(retrying(lambda: self._files.ls(self._root, detail=detail), f"listing {self.name}"))
            except FileNotFoundError:
                return []
            finally:  # clients answer other questions from a listing that they keep, and it may lag
                self._files.invalidate_cache(self._root)

        return self._asking(listed, self.name)

    def _put(self, name: str, content: bytes, **options: Any) -> None:
        if hasattr(self._files, "call_s3"):
            options["chunksize"] = _LARGEST_PUT
        self._files.pipe_file(self._at(name), content, **options)

    def _asking(self, call: Callable[[], _T], url: str) -> _T:
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreachable(f"{url} cannot be read", error) from error

    def _changing(self, call: Any, what: str) -> None:
        try:
            retrying(call, f"writing {what}")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _object_error(what, error) from error


def unreachable(what: str, error: OSError) -> UnreachableError:
    """The error for a call that an object store refused or did not answer, with the remedy."""
    remedy = _OTHERWISE  # a HEAD has no body that names the reason
    if isinstance(error, PermissionError):
        said = f"{error} {error.__cause__}"
        remedy = _SET_CLOCK if any(word in said for word in _OTHER_TIME) else _RENEW
    elif isinstance(error, GaveUpError):
        remedy = _AGAIN
    return UnreachableError(f"{what} ({' '.join(str(error).split())}){remedy}")


def _facts_of(entry: dict[str, Any]) -> FileFacts:
    """Facts from the entry that fsspec gives for a file; its keys differ from store to store."""
    tag = next((entry[key] for key in ("ETag", "etag", "md5Hash") if entry.get(key)), None)
    when = next((entry[key] for key in ("LastModified", "last_modified", "updated", "created") if entry.get(key)), 0.0)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    seconds = when.timestamp() if isinstance(when, datetime) else float(when)
    return FileFacts(seconds, "" if tag is None else f"{entry.get('size')}-{tag}")


def _object_error(what: str, error: OSError) -> StoreError:
    return unreachable(f"cannot write {what}", error)


def unreadable(storage: Storage, name: str, error: OSError) -> StoreError:
    """The error for a file that is there and cannot be read: on an object store it may be intact."""
    what = f"{storage.url(name)} cannot be read"
    return unreachable(what, error) if storage.local is None else StoreError(f"{what} ({error})")


__all__ = ["FileFacts", "LocalStorage", "ObjectStorage", "Storage", "is_url", "open_storage", "unreadable"]
