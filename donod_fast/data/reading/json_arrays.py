"""The elements of a JSON array one by one, so that memory holds some of them and not the document."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from donod_fast.data.reading.encodings import BOM, not_utf8
from donod_fast.data.reading.json_texts import TOO_DEEP
from donod_fast.system.limits import ReadLimits

_BLOCK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class InvalidJsonError(Exception):
    """The text is no JSON; the message is the problem with its place."""


class JsonText:
    """A window on a JSON text, which grows at its end and is cut at its beginning.

    Args:
        stream: the bytes, from the beginning.
        limits: the largest element.
    """

    def __init__(self, stream: BinaryIO, limits: ReadLimits) -> None:
        self._stream, self._limits = stream, limits
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at = "", 0
        self._is_whole = False
        self._bytes = 0  # taken from the stream
        self._line, self._column = 1, 1  # of the first character of the window
        self._begins = False

    def first(self) -> str:
        """The first character that is not white space; ``""`` if there is none. A byte order mark is left out."""
        if not self._begins:
            self._begins = True
            self._more()
            self._at = int(self._text.startswith(BOM.decode()))
            self._text, self._at = self._text[self._at :], 0
        return self._next()

    def rest(self, most: int) -> bytes | None:
        """The text from here on, read to its end; None if it has more bytes than ``most``."""
        read = self._text.encode() + self._decode.getstate()[0]
        rest = self._stream.read(most + 1 - len(read)) if len(read) <= most else b""
        return None if len(read) + len(rest) > most else read + rest

    def elements(self) -> Iterator[tuple[Any, str]]:
        """Value and own text of each element, where :meth:`first` is ``[``.

        Raises:
            InvalidJsonError: the text is no JSON array, or an element is too large.
        """
        self.first()
        self._at += 1
        number = 0
        if self._next() == "]":
            self._at += 1
        else:
            while True:
                yield self._element(number)
                number += 1
                mark = self._next()
                if mark not in (",", "]"):
                    raise self._invalid("Expecting ',' delimiter", self._at)
                self._at += 1
                if mark == "]":
                    break
                self._next()
        if self._next():
            raise self._invalid("Extra data", self._at)

    def _element(self, number: int) -> tuple[Any, str]:
        before = -1  # where it failed before the window grew
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # An error at the same place in a longer text is not one of the window's end. A string may go beyond it.
                is_real = error.pos - self._at == before and not error.msg.startswith("Unterminated string")
                if self._is_whole or is_real:
                    raise self._invalid(error.msg, error.pos) from None
                before = error.pos - self._at
            except RecursionError:
                raise InvalidJsonError(TOO_DEEP) from None
            except ValueError as error:  # an integer with more digits than Python converts
                raise InvalidJsonError(f"not readable JSON: record {number}: {error}") from None
            else:
                if end < len(self._text) or self._is_whole:  # else a number may not be complete
                    text, self._at = self._text[self._at : end], end
                    if len(text) * 4 > self._limits.record_bytes:
                        self._refuse_large(number, len(text.encode("utf-8", "surrogatepass")))
                    return value, text
            self._refuse_large(number, len(self._text) - self._at)
            self._more()

    def _refuse_large(self, number: int, size: int) -> None:
        if size > self._limits.record_bytes:
            raise InvalidJsonError(
                f"record {number} is {self._limits.too_large}, or write one record per line (JSON Lines), where it "
                "does not stop the others"
            )

    def _next(self) -> str:
        """The next character that is not white space, which becomes the window's position; ``""`` at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = self._at if found is None else found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_whole:
                return ""
            self._more()

    def _more(self) -> None:
        """Cut the window at its position, and make it at least twice as long."""
        gone, self._text = self._text[: self._at], self._text[self._at :]
        self._at = 0
        if gone:
            lines = gone.count("\n")
            self._line += lines
            self._column = len(gone) - gone.rfind("\n") if lines else self._column + len(gone)
        block = self._stream.read(max(_BLOCK, len(self._text)))
        self._is_whole = not block
        held = len(self._decode.getstate()[0])
        try:
            self._text += self._decode.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place = self._bytes - held + error.start + 1
            raise InvalidJsonError(not_utf8(error.object[error.start], f"at byte {place}")) from None
        self._bytes += len(block)

    def _invalid(self, message: str, at: int) -> InvalidJsonError:
        before = self._text[:at]
        lines = before.count("\n")
        line = self._line + lines
        column = len(before) - before.rfind("\n") if lines else self._column + len(before)
        place = f"column {column}" if line == 1 else f"line {line} column {column}"
        return InvalidJsonError(f"not valid JSON: {message} at {place}")


__all__ = ["InvalidJsonError", "JsonText"]
