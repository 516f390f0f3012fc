"""Where a file lies: on this machine, or behind a URL that fsspec knows (``s3://``, ``gs://``, ``memory://``, …).

A place opens its file for raw bytes and tells its size and *stamp*: what changes when the file is written
again (the modification time of a local file, the etag of an object). Remote bytes come in ranges, each
tried again on its own, so that a broken connection costs a range and not the run. Nothing is kept open
between calls, and fsspec's instances are looked up anew in each process: a place can be pickled.
"""

from __future__ import annotations

import datetime
import io
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from donod_fast.errors import CorpusError
from donod_fast.system.retrying import retrying

STREAM_BLOCK = 8 << 20
"""Bytes in one request where a file is read from front to back."""

TABLE_BLOCK = 1 << 20
TABLE_BLOCKS_KEPT = 16
"""A Parquet file is read at several places in turn (one a column): smaller ranges, and more of them kept."""

CLOCK_TICK_NS = 20_000_000
"""File systems take modification times from a clock that ticks some 100 times a second."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_ETAGS = ("ETag", "etag", "e_tag", "content_md5", "md5Hash", "Content-MD5", "Digest")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified")


class Stat(NamedTuple):
    """Size in bytes, and what changes when the file is written again (``""`` where nothing tells)."""

    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A file of this machine; ``path`` is absolute."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def entry(self) -> dict[str, str]:
        """The place in a description: what :func:`place_of_entry` reads."""
        return {"path": str(self.path)}

    def stat(self) -> Stat:
        """Size and modification time in nanoseconds.

        Raises:
            OSError: there is no such file, or it may not be looked at.
        """
        found = self.path.stat()
        return Stat(found.st_size, str(found.st_mtime_ns))

    def settled_stat(self) -> Stat:
        """The same, once a change to come must show in it: waits while the file was written only just now."""
        stat = self.stat()
        age = time.time_ns() - int(stat.stamp)
        if 0 <= age < CLOCK_TICK_NS:
            time.sleep((CLOCK_TICK_NS - age) / 1e9)
            stat = self.stat()
        return stat

    def open(self, start: int = 0, end: int | None = None, size: int | None = None) -> io.RawIOBase:
        """Open for raw bytes, at byte ``start``; ``end`` and ``size`` matter to remote files only.

        Raises:
            OSError: it cannot be opened.
        """
        file = self.path.open("rb", buffering=0)
        if start:
            file.seek(start)
        return file

    def open_table(self, size: int) -> io.RawIOBase:
        """Open for reading at several places; the same as :meth:`open`."""
        return self.open()


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """A file behind a URL that fsspec can read in ranges."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def entry(self) -> dict[str, str]:
        """The place in a description: what :func:`place_of_entry` reads."""
        return {"url": self.url}

    def stat(self) -> Stat:
        """Size and etag (else modification time), asked of the store and never of a listing kept from before.

        Raises:
            OSError: there is no such file, it may not be looked at, or the store cannot be reached.
            CorpusError: the URL cannot be understood here, or its server does not tell a size.
        """
        fs, path = filesystem(self.url)
        info = remote_info(self.url)
        size = info.get("size")
        if not isinstance(size, int):
            raise CorpusError(f"{self.url}: the server does not tell its size; fetch the file and name the copy")
        return Stat(size, _stamp(fs, path, info))

    def settled_stat(self) -> Stat:
        """The same as :meth:`stat`: an etag changes at once."""
        return self.stat()

    def open(self, start: int = 0, end: int | None = None, size: int | None = None) -> io.RawIOBase:
        """Open for raw bytes from front to back, at byte ``start``.

        Args:
            start: where reading begins.
            end: a byte that reading will hardly pass: no more is asked for at first.
            size: the file's bytes, if they are known.

        Raises:
            OSError: the file cannot be looked at.
        """
        size = self.stat().size if size is None else size
        return RemoteFile(self.url, size, block=STREAM_BLOCK, start=start, end=end)

    def open_table(self, size: int) -> io.RawIOBase:
        """Open a file of a known size for reading at several places in turn, as Parquet is read."""
        return RemoteFile(self.url, size, block=TABLE_BLOCK, kept=TABLE_BLOCKS_KEPT)


Place = LocalPlace | RemotePlace


def is_url(name: str) -> bool:
    """Tell a URL (``scheme://…``) from a path."""
    return _URL.match(name) is not None


def local_path(name: str) -> Path | None:
    """The path that a path or ``file://`` URL stands for; None for other URLs."""
    if not is_url(name):
        return Path(name).expanduser()
    return Path(unquote(urlsplit(name).path)) if name.lower().startswith("file://") else None


def place_of_entry(entry: Mapping[str, Any]) -> Place:
    """The place that a description's entry names by ``path`` or ``url``."""
    return RemotePlace(entry["url"]) if "url" in entry else LocalPlace(Path(entry["path"]))


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system that reads a URL, and the path within it.

    Raises:
        CorpusError: the scheme is unknown, or its package is not installed.
    """
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        scheme = url.partition("://")[0]
        package = known_implementations.get(scheme, {}).get("class", scheme).partition(".")[0]
        wanted = "'donod-fast[s3]'" if package == "s3fs" else package
        raise CorpusError(f"{url}: needs the package {package}; install it: pip install {wanted}") from error
    except ValueError as error:
        raise CorpusError(f"{url}: cannot be read from there: {error}; give a path, or s3:// or gs:// …") from error
    return fs, str(path)


def remote_info(url: str) -> dict[str, Any]:
    """What the store says of a file now (fsspec's ``info``).

    Raises:
        OSError: there is no such file, it may not be looked at, or the store cannot be reached.
        CorpusError: as :func:`filesystem` raises it.
    """
    fs, path = filesystem(url)

    def look() -> dict[str, Any]:
        fs.invalidate_cache(path)  # a listing kept from before would show the file as it was
        return dict(fs.info(path))

    return retrying(look, f"looking at {url}")


def remote_matches(pattern: str) -> list[tuple[str, Stat | None]]:
    """The files that a URL with wildcards matches, sorted: URL, and what the listing says of each.

    Raises:
        OSError: the store cannot be reached or refuses.
        CorpusError: as :func:`filesystem` raises it.
    """
    fs, path = filesystem(pattern)

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
            matches.append((url, Stat(info["size"], stamp) if stamp and isinstance(info.get("size"), int) else None))
    return matches


def _stamp(fs: Any, path: str, info: Mapping[str, Any]) -> str:
    stamp = _stamp_in(info)
    if stamp:
        return stamp
    try:
        return _spelt(retrying(lambda: fs.modified(path), f"looking at {path}"))
    except NotImplementedError:
        return _spelt(info.get("created") or "")


def _stamp_in(info: Mapping[str, Any]) -> str:
    return next((_spelt(info[key]) for key in (*_ETAGS, *_TIMES) if info.get(key)), "")


def _spelt(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value).strip('"')


class RemoteFile(io.RawIOBase):
    """A remote file as raw bytes: read in ranges from where the reader is, the last few kept."""

    def __init__(
        self, url: str, size: int, *, block: int, kept: int = 1, start: int = 0, end: int | None = None
    ) -> None:
        """Open nothing yet: the first read asks for the first range.

        Args:
            url: which file.
            size: its bytes.
            block: bytes in one range.
            kept: how many ranges are kept.
            start: where the reader is at first.
            end: a byte that reading will hardly pass: a range ends there.
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
        """Read from one range; where several are kept, as many as fill the buffer.

        pyarrow takes a short read of a table for the file's end. A stream that went on would ask for the range
        behind the last wanted one.
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
            self._ranges.popitem(last=False)  # before the new one is there: memory holds no more than `kept`
        content = self._ranges[place] = retrying(lambda: self._fetched(place, end), f"reading {self._url}")
        return place, content

    def _fetched(self, begin: int, end: int) -> bytes:
        fs, path = filesystem(self._url)
        content = bytes(fs.cat_file(path, start=begin, end=end))
        if len(content) == self._size > end - begin:
            # A web server that knows no ranges sends the whole.
            content = content[begin:end]
        if len(content) != end - begin:
            raise OSError(f"{len(content)} bytes came where bytes {begin} to {end} were asked for")
        return content
