"""Recognise text that is not UTF-8 with line feeds, and say how to convert it."""

from __future__ import annotations

import shlex
from typing import Any, BinaryIO

from donod_fast.errors import CorpusError

BOM = b"\xef\xbb\xbf"
"""The byte order mark in UTF-8."""

_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_ZEROS = {"x000": "UTF-32LE", "000x": "UTF-32BE", "x0x0": "UTF-16LE", "0x0x": "UTF-16BE"}
"""Which of the first four bytes are zero in text that begins with ASCII characters."""

_ASCII = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))


def refuse_wide_text(name: str, stream: BinaryIO, compression: str | None) -> None:
    """Refuse a file in UTF-16 or UTF-32, with or without a byte order mark. The stream's position does not change.

    Args:
        name: the file as the user gave it.
        stream: its plain bytes, from the beginning.
        compression: how it is stored: ``"gzip"``, ``"zstd"`` or None.

    Raises:
        CorpusError: names the encoding, and the command that converts the file.
    """
    peek: Any = getattr(stream, "peek", None)
    encoding = _wide_encoding(b"" if peek is None else peek(4)[:4])
    if encoding is not None:
        file, convert = shlex.quote(name), f"iconv -f {encoding} -t UTF-8"
        command = f"{convert} {file}" if compression is None else f"{compression} -dc {file} | {convert}"
        raise CorpusError(f"{name}: the text is encoded in {encoding}, not UTF-8; convert it: {command} > NEW_FILE")


def _wide_encoding(start: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if all(byte == 0 or byte in _ASCII for byte in start):
        return _ZEROS.get("".join("0" if byte == 0 else "x" for byte in start))
    return None


def not_utf8(byte: int, place: str) -> str:
    """The problem of text with a byte that UTF-8 cannot have there.

    Args:
        byte: the byte.
        place: where it is, for example ``"at byte 3"``.
    """
    return (
        f"not UTF-8: byte 0x{byte:02x} {place}; if the whole file is Latin-1 (or Windows-1252), convert it: "
        "iconv -f LATIN1 -t UTF-8 (or -f WINDOWS-1252)"
    )


INNER_BOM = (
    "a byte order mark (BOM) begins this line, which is not the first one, as in files that were joined; "
    "remove it: sed -i '2,$s/^\\xEF\\xBB\\xBF//' FILE"
)
"""The problem of a line, other than the first one, that begins with a byte order mark."""

CR_ONLY = (
    "a line ends in a carriage return (CR) without a line feed; convert the file: tr '\\r' '\\n' < FILE > NEW_FILE"
)
"""The problem of a line that ends in a single carriage return; mostly all lines of the file do."""

_REMEDIES = ("convert", "remove it")


def has_remedy(problem: str) -> bool:
    """Whether a problem says how to mend it."""
    return any(word in problem for word in _REMEDIES)
