"""Open, decompress and hash files, and convert every failure into a CorpusError."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa

from donod_fast.data.reading.bounded_streams import PlainBytes, StoredBytes, refuse_sparse
from donod_fast.data.reading.trees import TreePlace
from donod_fast.errors import CorpusError
from donod_fast.system.hub_urls import LOG_IN, is_hub_url
from donod_fast.system.limits import ReadLimits
from donod_fast.system.places import LocalPlace, Place, Stat, is_url, place_of_entry
from donod_fast.system.retrying import GaveUpError

BUFFER_BYTES = 1 << 20
STORED_BYTES = 1 << 16
"""The same for a compressed file: few bytes, so that those which were taken are known."""

CODECS = {".gz": "gzip", ".zst": "zstd"}
"""File suffix → pyarrow's name of the compression."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The state of a file when it was scanned.

    Attributes:
        name: the file as the user gave it, for messages.
        place: its path or URL.
        compression: ``"gzip"``, ``"zstd"`` or None.
        size: bytes as stored.
        stamp: a value that changes when the file is written again (modification time or etag).
        sha256: hex digest of the bytes as stored, or of the footer of a Parquet file.
        of_footer: whether ``sha256`` is that of the footer.
        longest: bytes of the longest record; 0 where that is of no importance.
        limits: the limits that it is read within.
        tree: its place in a tree of files; None if it was named itself.
    """

    name: str
    place: Place
    compression: str | None
    size: int
    stamp: str
    sha256: str
    of_footer: bool = False
    longest: int = 0
    limits: ReadLimits = ReadLimits.DEFAULT
    tree: TreePlace | None = None

    @property
    def digest(self) -> str:
        """The hash; with the size if only the footer was hashed, and with the limit that a record is beyond."""
        if self.longest > self.limits.record_bytes:
            return f"{self.sha256}, records up to {self.limits.record_bytes} bytes"
        return f"footer {self.sha256} {self.size}" if self.of_footer else self.sha256

    def with_longest(self, longest: int) -> FileFacts:
        """The facts with the bytes of the longest record."""
        return replace(self, longest=longest)

    def describe(self, kind: str, rows: int) -> dict[str, Any]:
        """The facts as JSON types; :func:`facts_of_entry` reads them."""
        return {
            "kind": kind,
            "name": self.name,
            **self.place.entry,
            "compression": self.compression,
            "rows": rows,
            "size": self.size,
            "stamp": self.stamp,
            "footer_sha256" if self.of_footer else "sha256": self.sha256,
            "digest": f"{kind} {self.digest}",
            **({"longest": self.longest} if self.longest else {}),
            **({"limits": self.limits.as_json()} if self.limits.as_json() else {}),
            **({} if self.tree is None else {"tree": self.tree.as_json()}),
        }


def facts_of_entry(entry: Mapping[str, Any], name: str | None = None, limits: ReadLimits | None = None) -> FileFacts:
    """Rebuild the facts from a description by :meth:`FileFacts.describe`, without reading the file.

    Args:
        entry: the description.
        name: how the user names the file now; None for the name it had.
        limits: the limits that it is read within now; None for those it had. A file that was read to its end stays
            readable: of two limits on its expansion the larger one counts.

    Raises:
        KeyError: the description is incomplete.
    """
    of_footer = "footer_sha256" in entry
    had = ReadLimits.from_json(entry.get("limits"))
    limits = had if limits is None else replace(limits, expansion=max(limits.expansion, had.expansion))
    return FileFacts(
        entry["name"] if name is None else name,
        place_of_entry(entry),
        entry["compression"],
        entry["size"],
        entry["stamp"],
        entry["footer_sha256" if of_footer else "sha256"],
        of_footer,
        int(entry.get("longest", 0)),
        limits,
        TreePlace.from_json(entry.get("tree")),
    )


def changed_error(facts: FileFacts, what: str) -> CorpusError:
    """The error for a file that has changed since it was scanned."""
    return CorpusError(
        f"{facts.name}: the file {facts.place} has changed since it was first read ({what}); "
        "restore the original content, or score the new one with --rescore-changed or into another folder"
    )


class _HashingFile(StoredBytes):
    """Returns a file's bytes unchanged, counts and hashes them."""

    def __init__(self, file: io.RawIOBase) -> None:
        super().__init__(file)
        self.hash = hashlib.sha256()

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self.hash.update(memoryview(buffer)[:count])
        return count


@dataclass(slots=True)
class Scan:
    """A first pass over a file: ``stream`` gives its bytes, ``facts`` is available after the pass."""

    stream: BinaryIO
    _facts: FileFacts | None = None

    @property
    def facts(self) -> FileFacts:
        """Size and hash of the file; only after the ``with`` block of :func:`scanning`."""
        assert self._facts is not None, "the scan has not ended"
        return self._facts

    def facts_found(self, facts: FileFacts) -> None:
        """Store the result of the pass."""
        self._facts = facts


@contextmanager
def file_errors(name: str, file: io.RawIOBase | None = None) -> Iterator[None]:
    """Convert any error of reading a file into a CorpusError that names file, position and remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorpusError(f"{name}: there is no such file; check the {'URL' if is_url(name) else 'path'}") from error
    except PermissionError as error:
        remedy = f"check the credentials ({error})" if is_url(name) else "make the file readable for this user"
        remedy = f"{LOG_IN} ({error})" if is_hub_url(name) else remedy
        raise CorpusError(f"{name}: permission denied; {remedy}") from error
    except GaveUpError as error:
        raise CorpusError(f"{name}: cannot be read: {error}; run again when the store is reachable") from error
    except (OSError, pa.ArrowException) as error:
        place = f", at about byte {file.tell()} of the file" if file is not None and not file.closed else ""
        reason = str(error).split("\n")[0]
        raise CorpusError(
            f"{name}: cannot be read{place}: {reason}; the file may be damaged or truncated; fetch it again"
        ) from error


@contextmanager
def scanning(
    name: str, place: Place, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT
) -> Iterator[Scan]:
    """Read a file for the first time: hash the stored bytes while yielding the plain bytes.

    Raises:
        CorpusError: the file cannot be opened, read or decompressed, is written to during the pass, expands beyond the
            limits, or consists of holes.
    """
    with file_errors(name):
        stat = place.settled_stat()
        refuse_sparse(name, place, stat.size)
    with file_errors(name), place.open(size=stat.size) as file, file_errors(name, file):
        hashing = _HashingFile(file)
        scan = Scan(_plain_bytes(name, hashing, compression, limits))
        yield scan
        # A reader may stop early (a decompressor at its end mark), but the hash covers all bytes.
        while hashing.read(BUFFER_BYTES):
            pass
    digest = hashing.hash.hexdigest()
    scan.facts_found(FileFacts(name, place, compression, hashing.size, stat.stamp, digest, limits=limits))
    refuse_moving(name, place, stat, hashing.size)


def refuse_moving(name: str, place: Place, before: Stat, size: int) -> None:
    """Refuse a file that was written to during its first pass.

    Args:
        name: the file as the user gave it.
        place: its path or URL.
        before: its state before the pass.
        size: number of bytes that the pass read.

    Raises:
        CorpusError: its state has changed.
    """
    with file_errors(name):
        after = place.stat()
    if after != before or size != before.size:
        raise CorpusError(
            f"{name}: the file {place} changed while it was read ({before.size} bytes before, {size} read, "
            f"{after.size} after); wait until it is complete"
        )


@contextmanager
def unchanged(facts: FileFacts) -> Iterator[None]:
    """Check that a scanned file is the same before and after it is read.

    Raises:
        CorpusError: size or stamp have changed. If the reading itself failed and the file has
            changed, the message reports the change.
    """
    check_unchanged(facts)
    try:
        yield
    except CorpusError:
        check_unchanged(facts)
        raise
    check_unchanged(facts)


@contextmanager
def reading(facts: FileFacts, start: int = 0, end: int | None = None) -> Iterator[BinaryIO]:
    """Open a scanned file again for its plain bytes (seekable where it is not compressed).

    Args:
        facts: which file.
        start: the byte to begin at (0 where the file is compressed).
        end: a byte that reading will hardly pass, if known, so that later bytes of remote files are not fetched.

    Raises:
        CorpusError: the file cannot be read, or its size or stamp has changed, before or after reading.
    """
    place, limits = facts.place, facts.limits
    with unchanged(facts), peeking(facts.name, place, facts.compression, start, end, facts.size, limits) as stream:
        yield stream


@contextmanager
def peeking(
    name: str,
    place: Place,
    compression: str | None,
    start: int = 0,
    end: int | None = None,
    size: int | None = None,
    limits: ReadLimits = ReadLimits.DEFAULT,
) -> Iterator[BinaryIO]:
    """Open a file for its plain bytes, without a hash; ``start`` and ``end`` as for :func:`reading`, ``size`` if known.

    Raises:
        CorpusError: the file cannot be opened, read or decompressed, or expands beyond the limits.
    """
    with file_errors(name), place.open(start, end, size) as file, file_errors(name, file):
        yield _plain_bytes(name, file, compression, limits)


def check_unchanged(facts: FileFacts) -> None:
    """Refuse a scanned file whose size or stamp has changed.

    Raises:
        CorpusError: it has changed, is missing, or cannot be inspected.
    """
    with file_errors(facts.name):
        size, stamp = facts.place.stat()
    if size != facts.size:
        raise changed_error(facts, f"{size} bytes, {facts.size} before")
    if stamp != facts.stamp:
        raise changed_error(facts, f"same size, but written again: stamp {stamp}, {facts.stamp} before")


def check_content(facts: FileFacts) -> None:
    """Refuse a scanned file on a disk whose bytes have changed: one pass over the file.

    Size and stamp do not show a flipped bit. Files of which only the footer was hashed, and files behind URLs, are not
    read.

    Raises:
        CorpusError: its content has changed, or it cannot be read.
    """
    if facts.of_footer or not isinstance(facts.place, LocalPlace):
        return
    with file_errors(facts.name), facts.place.open(size=facts.size) as file, file_errors(facts.name, file):
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != facts.sha256:
        raise changed_error(facts, "same size and time, but other content")


def _plain_bytes(name: str, file: io.RawIOBase, compression: str | None, limits: ReadLimits) -> BinaryIO:
    if compression is None:
        return io.BufferedReader(file, BUFFER_BYTES)
    stored = file if isinstance(file, StoredBytes) else StoredBytes(file)
    # pyarrow's stream is not an io.RawIOBase, but it has readinto, the only method that PlainBytes calls.
    codec: Any = compression  # pyarrow's stub wants a Literal
    plain = pa.CompressedInputStream(pa.PythonFile(io.BufferedReader(stored, STORED_BYTES), mode="r"), codec)
    return io.BufferedReader(PlainBytes(name, plain, stored, limits), BUFFER_BYTES)
