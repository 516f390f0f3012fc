"""Bytes of files: opened, decompressed, hashed, and every failure turned into a CorpusError."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from donod_fast.errors import CorpusError

BOM = b"\xef\xbb\xbf"
BUFFER_BYTES = 1 << 20
CODECS = {".gz": "gzip", ".zst": "zstd"}
"""File suffix → pyarrow's name of the compression."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file was when it was scanned.

    Attributes:
        name: the file as the user gave it, for messages.
        path: where it lies, absolute.
        compression: ``"gzip"``, ``"zstd"`` or None.
        size: bytes as stored.
        sha256: hex digest of the bytes as stored.
    """

    name: str
    path: Path
    compression: str | None
    size: int
    sha256: str

    def describe(self, kind: str, rows: int) -> dict[str, Any]:
        """The facts as JSON types."""
        return {
            "kind": kind,
            "name": self.name,
            "path": str(self.path),
            "compression": self.compression,
            "rows": rows,
            "size": self.size,
            "sha256": self.sha256,
        }


def changed_error(facts: FileFacts, what: str) -> CorpusError:
    """The error for a file that is no longer what was scanned."""
    return CorpusError(
        f"{facts.name}: the file {facts.path} has changed since it was first read ({what}); "
        "put the original content back, or score the new content into another folder"
    )


class _HashingFile(io.RawIOBase):
    """Passes a file's bytes through and hashes them on the way."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.hash.update(memoryview(buffer)[:count])
        self.size += count
        return count


@dataclass(slots=True)
class Scan:
    """A first pass over a file: ``stream`` gives its bytes, ``facts`` is there after the pass."""

    stream: BinaryIO
    _facts: FileFacts | None = None

    @property
    def facts(self) -> FileFacts:
        """Size and hash of the file; only after the ``with`` block of :func:`scanning`."""
        assert self._facts is not None, "the scan has not ended"
        return self._facts


@contextmanager
def file_errors(name: str, file: io.FileIO | None = None) -> Iterator[None]:
    """Turn what reading a file may raise into a CorpusError that names file, place and remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorpusError(f"{name}: there is no such file; check the path") from error
    except PermissionError as error:
        raise CorpusError(f"{name}: permission denied; make the file readable for this user") from error
    except (OSError, pa.ArrowException) as error:
        place = f", at about byte {file.tell()} of the file" if file is not None and not file.closed else ""
        reason = str(error).split("\n")[0]
        raise CorpusError(
            f"{name}: cannot be read{place}: {reason}; the file may be damaged or cut off, fetch it again"
        ) from error


@contextmanager
def scanning(name: str, path: Path, compression: str | None) -> Iterator[Scan]:
    """Read a file for the first time, hashing the stored bytes while handing out the plain ones.

    Raises:
        CorpusError: the file cannot be opened, read or decompressed.
    """
    with file_errors(name), path.open("rb", buffering=0) as file, file_errors(name, file):
        hashing = _HashingFile(file)
        scan = Scan(_plain_bytes(io.BufferedReader(hashing, BUFFER_BYTES), compression))
        yield scan
        # A reader may stop early (a decompressor at its end mark), but the hash is that of all bytes.
        while hashing.read(BUFFER_BYTES):
            pass
        scan._facts = FileFacts(name, path.absolute(), compression, hashing.size, hashing.hash.hexdigest())


@contextmanager
def reading(facts: FileFacts) -> Iterator[BinaryIO]:
    """Open a scanned file again for its plain bytes (seekable where it is not compressed).

    Raises:
        CorpusError: the file cannot be read, or its size is not what it was.
    """
    check_size(facts)
    with peeking(facts.name, facts.path, facts.compression) as stream:
        yield stream


@contextmanager
def peeking(name: str, path: Path, compression: str | None) -> Iterator[BinaryIO]:
    """Open a file for its plain bytes, without a hash.

    Raises:
        CorpusError: the file cannot be opened, read or decompressed.
    """
    with file_errors(name), path.open("rb", buffering=0) as file, file_errors(name, file):
        yield _plain_bytes(io.BufferedReader(file, BUFFER_BYTES), compression)


def check_size(facts: FileFacts) -> None:
    """Refuse a scanned file whose size is not what it was: the cheap half of the check for changes."""
    with file_errors(facts.name):
        size = facts.path.stat().st_size
    if size != facts.size:
        raise changed_error(facts, f"{size} bytes, {facts.size} before")


def _plain_bytes(stored: io.BufferedReader, compression: str | None) -> BinaryIO:
    if compression is None:
        return stored
    # pyarrow's stream is no io.RawIOBase but offers readinto, which is all that BufferedReader calls.
    codec: Any = compression  # pyarrow's stub wants a Literal
    plain = pa.CompressedInputStream(pa.PythonFile(stored, mode="r"), codec)
    return io.BufferedReader(cast(io.RawIOBase, plain), BUFFER_BYTES)
