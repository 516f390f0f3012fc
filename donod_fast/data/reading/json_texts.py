"""JSON text: values with their problems in words, and the own text of each record in a document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from donod_fast.data.reading.encodings import BOM, CR_ONLY, INNER_BOM, not_utf8

_SPACE = re.compile(r"[ \t\n\r]*")
_LINE_BREAK = re.compile(r"[ \t\n\r]*[\n\r][ \t\n\r]*")
_DECODER = json.JSONDecoder()

TOO_DEEP = "the JSON is nested too deep"


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


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def parsed(raw: bytes) -> tuple[Any, str | None]:
    """Parse JSON: (the value, None) or (None, the problem). Raises nothing."""
    try:
        return json.loads(raw.decode("utf-8")), None
    except UnicodeDecodeError as error:
        return None, not_utf8(raw[error.start], f"at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        if raw.startswith(BOM):
            return None, INNER_BOM
        if error.msg == "Extra data" and b"\r" in raw and b"\n" not in raw:
            return None, CR_ONLY
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        return None, f"not valid JSON: {error.msg} at {place}"
    except RecursionError:
        return None, TOO_DEEP
    except ValueError as error:  # an integer with more digits than Python converts
        return None, f"not readable JSON: {error}"


def kind_of_value(value: Any) -> str:
    """The kind of a JSON value, in words."""
    if value is None:
        return "null"
    names = {list: "an array", str: "a string", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


__all__ = ["TOO_DEEP", "elements", "kind_of_value", "member_position", "one_line", "parsed"]
