"""Location of a file: on this machine, or behind a URL that fsspec supports (``s3://``, ``gs://``, ``memory://``, …).

A place opens its file for raw bytes and gives its size and *stamp*, a value that changes when the file is
written again (the modification time of a local file, the etag of an object). Remote files are read in ranges,
and each range is retried separately, so a broken connection costs a range and not the run. Nothing stays open
between calls, and each process looks up its own fsspec instances, so a place can be pickled.
"""

from __future__ import annotations

import datetime
import io
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from donod_fast.confidential import VARIABLE, hide, reveal
from donod_fast.errors import CorpusError, InputError
from donod_fast.system.hub_urls import is_hub_url
from donod_fast.system.retrying import retrying

STREAM_BLOCK = 8 << 20
"""Bytes per request when a file is read from beginning to end."""

TABLE_BLOCK = 1 << 20
TABLE_BLOCKS_KEPT = 16
"""A Parquet file is read at several positions in turn (one per column): smaller ranges, and more of them cached."""

CLOCK_TICK_NS = 20_000_000
"""Resolution of modification times: file systems use a clock with about 100 ticks per second."""

UNKNOWN_SECRET = (
    "its user, password or signature is not kept; "
    f"set {VARIABLE} to the whole URL, or name the whole URL again, and repeat the command"
)
"""End of a message about a URL whose secrets are not known."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_ETAGS = ("ETag", "etag", "e_tag", "content_md5", "md5Hash", "Content-MD5", "Digest", "xet_hash", "blob_id")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified")


class Stat(NamedTuple):
    """Size in bytes, and a stamp that changes when the file is written again (``""`` if there is none)."""

    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A file on this machine; ``path`` is absolute."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def entry(self) -> dict[str, str]:
        """The place as an entry of a description, as :func:`place_of_entry` reads it."""
        return {"path": str(self.path)}

    def stat(self) -> Stat:
        """Size and modification time in nanoseconds.

        Raises:
            OSError: the file does not exist, or access is denied.
        """
        found = self.path.stat()
        return Stat(found.st_size, str(found.st_mtime_ns))

    def settled_stat(self) -> Stat:
        """The same, but waits if the file was written just now, so that any later change gets another stamp."""
        stat = self.stat()
        age = time.time_ns() - int(stat.stamp)
        if 0 <= age < CLOCK_TICK_NS:
            time.sleep((CLOCK_TICK_NS - age) / 1e9)
            stat = self.stat()
        return stat

    def open(self, start: int = 0, end: int | None = None, size: int | None = None) -> io.RawIOBase:
        """Open for raw bytes at byte ``start``; ``end`` and ``size`` are used by remote files only.

        Raises:
            OSError: it cannot be opened.
        """
        file = self.path.open("rb", buffering=0)
        if start:
            file.seek(start)
        return file

    def open_table(self, size: int, block: int = TABLE_BLOCK) -> io.RawIOBase:
        """Open for reading at several positions; the same as :meth:`open`."""
        return self.open()


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """A file behind a URL; fsspec reads it in ranges.

    ``url`` has no secrets, whatever it was made from: see :mod:`donod_fast.confidential`. A pickled place has them, so
    that another process can read the file.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", hide(self.url))

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePlace, (reveal(self.url) or self.url,)

    def __str__(self) -> str:
        return self.url

    @property
    def entry(self) -> dict[str, str]:
        """The place as an entry of a description, as :func:`place_of_entry` reads it."""
        return {"url": self.url}

    def stat(self) -> Stat:
        """Size and etag (or else modification time), always from the store and never from a cached listing.

        Raises:
            OSError: the file does not exist, access is denied, or the store cannot be reached.
            CorpusError: the URL is not supported, or its server does not give a size.
        """
        fs, path = filesystem(self.url)
        info = remote_info(self.url)
        size = info.get("size")
        if not isinstance(size, int):
            raise CorpusError(f"{self.url}: the server does not give its size; download the file and use the copy")
        return Stat(size, _stamp(fs, path, info))

    def settled_stat(self) -> Stat:
        """The same as :meth:`stat`: an etag changes at once."""
        return self.stat()

    def open(self, start: int = 0, end: int | None = None, size: int | None = None) -> io.RawIOBase:
        """Open for raw bytes, to read from byte ``start`` on.

        Args:
            start: first byte to read.
            end: a byte that reading will probably not pass; the first requests end there.
            size: the file's size in bytes, if known.

        Raises:
            OSError: the file cannot be accessed.
        """
        size = self.stat().size if size is None else size
        return RemoteFile(self.url, size, block=STREAM_BLOCK, start=start, end=end)

    def open_table(self, size: int, block: int = TABLE_BLOCK) -> io.RawIOBase:
        """Open a file of known size for reading at several positions in turn, as Parquet is read.

        Args:
            size: bytes of the file.
            block: bytes per request.
        """
        return RemoteFile(self.url, size, block=block, kept=TABLE_BLOCKS_KEPT)


Place = LocalPlace | RemotePlace


def is_url(name: str) -> bool:
    """Whether a name is a URL (``scheme://…``) and not a path."""
    return _URL.match(name) is not None


def local_path(name: str) -> Path | None:
    """The path of a path or a ``file://`` URL; None for other URLs."""
    if not is_url(name):
        return path_of(name)
    return Path(unquote(urlsplit(name).path)) if name.lower().startswith("file://") else None


def refuse_url(out: str | Path, what: str) -> None:
    """Refuse a URL where only a folder or file of this machine can be written.

    Args:
        out: the name; a path in which ``//`` has become ``/`` is recognised too.
        what: what would be written, such as ``"an export"``.

    Raises:
        InputError: it is a URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]+:/", str(out)):
        url = re.sub(r":/+", "://", str(out), count=1)
        raise InputError(f"{hide(url)}: {what} is written to this machine only; give a path, and upload it then")


def hidden_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of inputs, without the secrets of URLs.

    Raises:
        InputError: two different URLs differ only in what is hidden, so that one could be taken for the other.
    """
    whole: dict[str, str] = {}
    found = []
    for name in names:
        marked = hide(name)
        if whole.setdefault(marked, name) != name and name != marked:
            raise InputError(f"{marked} is given twice, with different secrets; download one of the files")
        found.append(marked)
    return tuple(found)


def path_of(name: str | Path) -> Path:
    """A path in which ``~`` and ``~user`` stand for home folders, unless a file has that name, or no user."""
    return Path(name) if os.path.lexists(name) else Path(os.path.expanduser(name))  # noqa: PTH111


def place_of_entry(entry: Mapping[str, Any]) -> Place:
    """The place of a description's entry, which has ``path`` or ``url``."""
    return RemotePlace(entry["url"]) if "url" in entry else LocalPlace(Path(entry["path"]))


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path within it.

    Raises:
        CorpusError: the scheme is unknown, its package is not installed, or the secrets of the URL are not known.
    """
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    whole, url = reveal(url), hide(url)
    if whole is None:
        raise CorpusError(f"{url}: {UNKNOWN_SECRET}")
    try:
        fs, path = url_to_fs(whole)
    except ImportError as error:
        scheme = url.partition("://")[0]
        package = known_implementations.get(scheme, {}).get("class", scheme).partition(".")[0]
        wanted = "'donod-fast[s3]'" if package == "s3fs" else package
        raise CorpusError(f"{url}: needs the package {package}: pip install {wanted}") from error
    except ValueError as error:
        raise CorpusError(
            f"{url}: this URL cannot be read: {error}; give a path, or a URL such as s3://… or gs://…"
        ) from error
    return fs, str(path)


def remote_info(url: str) -> dict[str, Any]:
    """Ask the store about a file (fsspec's ``info``).

    Raises:
        OSError: the file does not exist, access is denied, or the store cannot be reached.
        CorpusError: see :func:`filesystem`.
    """
    fs, path = filesystem(url)
    url = hide(url)

    def look() -> dict[str, Any]:
        fs.invalidate_cache(path)  # a cached listing would show the old state
        return dict(fs.info(path))

    return retrying(look, f"looking at {url}")


def remote_matches(pattern: str) -> list[tuple[str, Stat | None]]:
    """The files that match a URL with wildcards, sorted, each with its size and stamp if the listing has them.

    Raises:
        OSError: the store cannot be reached or refuses.
        CorpusError: see :func:`filesystem`.
    """
    fs, path = filesystem(pattern)
    pattern = hide(pattern)

    def look() -> dict[str, Any]:
        fs.invalidate_cache()
        return dict(fs.glob(path, detail=True))

    found = retrying(look, f"listing {pattern}")
    scheme, chained = pattern.partition("://")[0], pattern.partition("::")[1:]
    matches: list[tuple[str, Stat | None]] = []
    for name, info in sorted(found.items()):
        if info.get("type") == "file":
            url = name if is_url(name) else f"{scheme}://{name.lstrip('/')}{''.join(chained)}"
            stamp = _stamp_in(info)
            matches.append(
                (hide(url), Stat(info["size"], stamp) if stamp and isinstance(info.get("size"), int) else None)
            )
    return matches


def remote_tree(url: str) -> dict[str, tuple[str, Stat | None]]:
    """All files in a folder behind a URL and its subfolders: path within it → its URL, and size and stamp if listed.

    Raises:
        OSError: the store cannot be reached or refuses.
        CorpusError: see :func:`filesystem`.
    """
    fs, path = filesystem(url)
    url = hide(url)

    def look() -> dict[str, Any]:
        fs.invalidate_cache()
        return dict(fs.find(path, detail=True))

    base = path.rstrip("/") + "/"
    files: dict[str, tuple[str, Stat | None]] = {}
    for name, info in sorted(retrying(look, f"listing {url}").items()):
        inside = str(name).removeprefix(base) if str(name).startswith(base) else ""
        if info.get("type") == "file" and inside and not inside.endswith("/"):
            stamp, size = _stamp_in(info), info.get("size")
            stat = Stat(size, stamp) if stamp and isinstance(size, int) else None
            files[inside] = (f"{url.rstrip('/')}/{inside}", stat)
    return files


def _stamp(fs: Any, path: str, info: Mapping[str, Any]) -> str:
    stamp = _stamp_in(info)
    if stamp:
        return stamp
    try:
        return _spelt(retrying(lambda: fs.modified(path), "looking at a file"))
    except NotImplementedError:
        return _spelt(info.get("created") or "")


def _stamp_in(info: Mapping[str, Any]) -> str:
    return next((_spelt(info[key]) for key in (*_ETAGS, *_TIMES) if info.get(key)), "")


def _spelt(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value).strip('"')


class RemoteFile(io.RawIOBase):
    """A remote file as raw bytes: read in ranges from the current position; the last few ranges are cached."""

    def __init__(
        self, url: str, size: int, *, block: int, kept: int = 1, start: int = 0, end: int | None = None
    ) -> None:
        """Open nothing yet: the first read requests the first range.

        Args:
            url: URL of the file.
            size: its size in bytes.
            block: bytes per range.
            kept: number of cached ranges.
            start: initial position.
            end: a byte that reading will probably not pass; a range ends there.
        """
        self._url = url
        self._size = size
        self._place = start
        self._end = end
        self._block = block
        self._kept = kept
        self._ranges: OrderedDict[int, bytes] = OrderedDict()  # first byte → bytes, least recently used first

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read from one range; if several are cached, read ranges until the buffer is full.

        pyarrow takes a short read of a table for the end of the file. For a stream, filling the buffer would request
        a range that nobody needs.
        """
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._place < self._size and (self._kept > 1 or not filled):
            begin, content = self._range_at(self._place)
            piece = content[self._place - begin : self._place - begin + len(view) - filled]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._place += len(piece)
        return filled

    def _range_at(self, place: int) -> tuple[int, bytes]:
        for begin, content in self._ranges.items():
            if begin <= place < begin + len(content):
                self._ranges.move_to_end(begin)
                return begin, content
        end = min(place + self._block, self._size)
        if self._end is not None and place < self._end:
            end = min(end, self._end)
        while len(self._ranges) >= self._kept:
            self._ranges.popitem(last=False)  # before the new range arrives: memory holds at most `kept` ranges
        content = self._ranges[place] = retrying(lambda: self._fetched(place, end), f"reading {self._url}")
        return place, content

    def _fetched(self, begin: int, end: int) -> bytes:
        fs, path = filesystem(self._url)
        # The hub's file system would read 5 MB ahead, and our own ranges are what is wanted
        options = {"cache_type": "none"} if is_hub_url(self._url) else {}
        content = bytes(fs.cat_file(path, start=begin, end=end, **options))
        if len(content) == self._size > end - begin:
            # A web server without range support sends the whole file.
            content = content[begin:end]
        if len(content) != end - begin:
            raise OSError(f"asked for bytes {begin} to {end}, but received {len(content)} bytes")
        return content
