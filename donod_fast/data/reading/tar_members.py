"""A walk over the members of a tar archive: from header to header, without reading the contents between them.

The standard library's ``tarfile`` ends in silence at a damaged header and at a missing end, and holds all members in
memory. This walk refuses both by name, and holds one member.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from donod_fast.errors import CorpusError

BLOCK = 512
"""Bytes of a header; contents are filled up to a multiple of it."""

_HEADER_BYTES = 1 << 20
"""Most bytes of a long name or a PAX header."""

_SKIP_BYTES = 1 << 20
_ZEROS = bytes(BLOCK)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_SILENT = (tarfile.DIRTYPE, b"V", b"D")
"""Folders and labels of volumes: they have no content of a sample."""

_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    b"M": "the rest of a file of another volume",
}
_PAX = re.compile(rb"(\d{1,20}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive that is not a folder.

    Attributes:
        name: its path.
        size: bytes of its content.
        begin: byte of the archive where its headers begin.
        content: byte where its content begins.
        end: byte after its content and the filling.
        problem: why its content cannot be read; None for a regular file.
    """

    name: str
    size: int
    begin: int
    content: int
    end: int
    problem: str | None = None


class TarWalk:
    """The members of an archive, in order.

    Args:
        name: the archive, for messages.
        stream: its bytes; they are only read forwards if it is not seekable.
        at: the byte of the archive where the stream stands, the beginning of a header.
        on_header: called with the bytes of each header, long names included.
        seeks: whether contents are skipped by seeking.
    """

    def __init__(
        self,
        name: str,
        stream: BinaryIO,
        at: int = 0,
        on_header: Callable[[bytes], None] | None = None,
        *,
        seeks: bool = True,
    ) -> None:
        self._name, self._stream, self._at, self._seeks = name, stream, at, seeks
        self._on_header = on_header
        self._headers: list[bytes] = []

    @property
    def header(self) -> bytes:
        """The headers of the member that was found last."""
        return b"".join(self._headers)

    @property
    def at(self) -> int:
        """The byte of the archive where the stream stands."""
        return self._at

    def __iter__(self) -> Iterator[Member]:
        """Yield the members that are not folders; stop at the end mark.

        Raises:
            CorpusError: the archive is damaged or ends too early, or there is content after its end mark.
        """
        while (member := self._next()) is not None:
            if member.name:
                yield member
            self._go(member.end)
        self._refuse_more()

    def content(self, member: Member) -> bytes:
        """The content of a member of the walk, which has not passed it. Raises CorpusError: it is cut off."""
        self._go(member.content)
        return self._exactly(member.size, f"the content of {member.name!r}")

    def pieces(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes of a range that the walk has not passed. Raises CorpusError: they are cut off."""
        self._go(begin)
        while self._at < end:
            yield self._exactly(min(_SKIP_BYTES, end - self._at), "a member")

    def _next(self) -> Member | None:
        begin = self._at
        self._headers.clear()
        long_name: str | None = None
        pax: dict[str, str] = {}
        while True:
            at = self._at
            block = self._exactly(BLOCK, "a header" if at > begin else "the end mark")
            if block == _ZEROS:
                if at > begin:
                    raise self._damaged(at, "the archive ends after a header of a long name")
                return None
            info = self._parsed(block, at)
            self._heard(block)
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                text = self._body(info, at).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
                long_name = text if info.type == tarfile.GNUTYPE_LONGNAME else long_name
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                pax = self._pax(self._body(info, at), at)
            elif info.type == tarfile.XGLTYPE:
                found = self._pax(self._body(info, at), at)
                if {"path", "size", "linkpath"} & found.keys() or any("sparse" in key for key in found):
                    raise self._damaged(at, "a global header sets names or sizes of members; write the archive again")
            else:
                return self._member(info, block, begin, long_name, pax)

    def _member(self, info: Any, block: bytes, begin: int, long_name: str | None, pax: dict[str, str]) -> Member:
        problem = None if info.type in _FILES else _KINDS.get(info.type, f"of the unknown type {info.type!r}")
        if any(key.startswith("GNU.sparse.") for key in pax):
            problem = _KINDS[tarfile.GNUTYPE_SPARSE]
        name = pax.get("path") or long_name or info.name
        stored = int(pax.get("size", info.size))
        size = stored if info.type not in (*_KINDS, *_SILENT) or info.type in (b"S", b"M", b"D") else 0
        more = info.type == tarfile.GNUTYPE_SPARSE and block[482]
        while more:  # further parts of the map of a sparse file
            following = self._exactly(BLOCK, "a header")
            self._heard(following)
            more = following[504]
        if problem is None and _leads_out(name):
            problem = "one whose name leads out of the archive"
        end = self._at + -(-size // BLOCK) * BLOCK
        silent = info.type in _SILENT
        return Member("" if silent else name, size, begin, self._at, end, problem)

    def _parsed(self, block: bytes, at: int) -> Any:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._damaged(at, f"no header of a member: {error}") from error
        if info.size < 0:
            raise self._damaged(at, f"a member of {info.size} bytes")
        return info

    def _body(self, info: Any, at: int) -> bytes:
        if info.size > _HEADER_BYTES:
            raise self._damaged(at, f"a header of {info.size:,} bytes")
        body = self._exactly(-(-info.size // BLOCK) * BLOCK, "a header")
        self._heard(body)
        return body[: info.size]

    def _pax(self, body: bytes, at: int) -> dict[str, str]:
        found: dict[str, str] = {}
        place = 0
        while place < len(body):
            match = _PAX.match(body, place)
            length = int(match[1]) if match is not None else 0
            if match is None or not match.end() - place < length <= len(body) - place:
                raise self._damaged(at, "a PAX header that cannot be read")
            value = body[match.end() : place + length - 1]
            found[match[2].decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
            place += length
        if not found.get("size", "0").isdecimal():
            raise self._damaged(at, f"a PAX header with the size {found['size']!r}")
        return found

    def _heard(self, block: bytes) -> None:
        self._headers.append(block)
        if self._on_header is not None:
            self._on_header(block)

    def _go(self, to: int) -> None:
        if self._seeks and to != self._at:
            self._stream.seek(to)
            self._at = to
        while self._at < to:
            self._exactly(min(_SKIP_BYTES, to - self._at), "a member")

    def _exactly(self, count: int, what: str) -> bytes:
        pieces: list[bytes] = []
        missing = count
        while missing and (piece := self._stream.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
        self._at += count - missing
        if missing:
            raise CorpusError(
                f"{self._name}: the archive is cut off at byte {self._at:,}, within {what}; fetch it again, or write it"
                " again and close it"
            )
        return b"".join(pieces)

    def _refuse_more(self) -> None:
        """Refuse content after the end mark: a reader of tar archives never sees it."""
        while piece := self._stream.read(_SKIP_BYTES):
            if piece.strip(b"\0"):
                raise CorpusError(
                    f"{self._name}: there is content after the end mark, after byte {self._at:,}, as when archives are "
                    "joined by cat; join them with tar --concatenate, or name each one"
                )
            self._at += len(piece)

    def _damaged(self, at: int, what: str) -> CorpusError:
        return CorpusError(f"{self._name}: the archive is damaged at byte {at:,}: {what}; fetch it again")


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


__all__ = ["BLOCK", "Member", "TarWalk"]
