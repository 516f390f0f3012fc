"""The own text of each record in a JSON document: one scan, element by element."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_LINE_BREAK = re.compile(r"[ \t\n\r]*[\n\r][ \t\n\r]*")
_DECODER = json.JSONDecoder()


def elements(text: str, begin: int) -> Iterator[tuple[Any, bytes]]:
    """The elements of an array in valid JSON text: value, and own text on one line.

    Line breaks of the text and the indentation around them are left out: no string holds a line break, so these
    only separate tokens. Everything else (escapes, the digits of numbers, keys that repeat) stays.

    Args:
        text: the whole document, which has been parsed before.
        begin: the position of the array's opening bracket.
    """
    at = _after_space(text, begin + 1)
    while text[at] != "]":
        value, end = _DECODER.raw_decode(text, at)
        yield value, one_line(text[at:end])
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def member_position(text: str, key: str) -> int:
    """The position of the value of an object's key in valid JSON text; of the last one if the key repeats.

    Args:
        text: the whole document, an object, which has been parsed before.
        key: one of its keys.
    """
    found = -1
    at = _after_space(text, _after_space(text, 0) + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _after_space(text, _after_space(text, at) + 1)  # over the colon
        if name == key:
            found = at
        at = _after_space(text, _DECODER.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def one_line(text: str) -> bytes:
    """JSON text in UTF-8 without its line breaks."""
    return _LINE_BREAK.sub("", text.strip(" \t\n\r")).encode("utf-8")


def first_bracket(text: str) -> int:
    """The position of the first character that is not white space."""
    return _after_space(text, 0)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


__all__ = ["elements", "first_bracket", "member_position", "one_line"]
