"""A list of strings: names of inputs, or texts. What may be both is refused; nothing is guessed.

A string is a *name* if it is a path object, the name of an existing file or folder, a URL, ``-``, or ends in a suffix
of a known kind of file. It is a *text* if it is no name and holds a line end, a character outside ASCII, or white space
without a slash. Other strings are open: one word, which may be a hub id (``squad``, ``owner/name``), or white space and
a slash, as in a path.

Names and open strings are opened as inputs. Texts and open strings are texts. Names beside texts are refused, and so
are texts that are JSON objects.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from donod_fast.data.reading.inputs import kind_and_codec
from donod_fast.data.settings import STDIN
from donod_fast.errors import InputError
from donod_fast.system.storage import is_url

_LONGEST_NAME = 4096
"""Longer strings are no paths on any system."""

REMEDY = "give texts as records, [{'text': text} for text in texts], and files by their names"


class _Meaning(Enum):
    NAME = "name"
    TEXT = "text"
    OPEN = "open"


def are_texts(strings: Sequence[str | Path]) -> bool:
    """Whether strings are texts; false if they are names of inputs.

    Raises:
        InputError: some are names and others texts, or they are JSON.
    """
    found = [_meaning(one) for one in strings]
    texts = [at for at, one in enumerate(found) if one is _Meaning.TEXT]
    if not texts:
        return False
    if _Meaning.NAME in found:
        name, text = strings[found.index(_Meaning.NAME)], strings[texts[0]]
        raise InputError(f"a list names an input ({str(name)!r:.80}) and holds a text ({text!r:.80}); {REMEDY}")
    json_text = next((at for at, one in enumerate(strings) if _is_json(str(one))), None)
    if json_text is not None:
        raise InputError(
            f"string {json_text} is a JSON object; parse them, [json.loads(line) for line in lines], or give the file"
        )
    return True


def refuse_text(name: str) -> None:
    """Refuse a single string that cannot be the name of an input. Raises InputError."""
    if "\n" in name or len(name) > _LONGEST_NAME:
        raise InputError(f"one string is the name of an input, got the text {name!r:.80}; {REMEDY}")


def _meaning(string: str | Path) -> _Meaning:
    if isinstance(string, Path):
        return _Meaning.NAME
    if "\n" in string or len(string) > _LONGEST_NAME:
        return _Meaning.TEXT
    if string == STDIN or is_url(string) or kind_and_codec(string.rpartition("/")[2]) or os.path.lexists(string):
        return _Meaning.NAME
    is_word = not any(one.isspace() for one in string)
    if string.isascii() and (is_word or "/" in string or "\\" in string):
        return _Meaning.OPEN
    return _Meaning.TEXT


def _is_json(string: str) -> bool:
    if not string.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(string), dict)
    except (ValueError, RecursionError):
        return False


__all__ = ["REMEDY", "are_texts", "refuse_text"]
