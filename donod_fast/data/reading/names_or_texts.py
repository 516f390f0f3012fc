"""A list of strings: names of inputs, or texts. What may be both is refused; nothing is guessed.

A string is a *name* if it is a path object, the name of an existing file or folder, a URL, ``-``, or ends in a suffix
of a known kind of file. It is a *text* if it is no name and holds a line end, a character outside ASCII, or white space
without a slash. Other strings are open: one word, which may be a hub id (``squad``, ``owner/name``), or white space and
a slash, as in a path.

Names and open strings are opened as inputs. Texts and open strings are texts. Names beside texts are refused, and so
are JSON objects, except where a file has that name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path

from donod_fast.data.reading.kinds import SUFFIXES
from donod_fast.data.reading.streams import CODECS
from donod_fast.data.settings import STDIN
from donod_fast.errors import InputError
from donod_fast.system.places import is_url

_LONGEST_NAME, _LONGEST_PATH = 255, 4096
"""Longer strings, without a slash and with one, are no names of files on any system."""

_SUFFIXES = tuple(f"{suffix}{codec}" for suffix in SUFFIXES for codec in ("", *CODECS))

_LONGEST_PATTERN = 64
"""Longer strings with an asterisk are texts."""

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
    here: list[str] = []
    found = [_meaning(one, here) for one in strings]
    texts = [at for at, one in enumerate(found) if one is _Meaning.TEXT]
    if texts and _Meaning.NAME in found:
        name, text = strings[found.index(_Meaning.NAME)], strings[texts[0]]
        raise InputError(f"a list names an input ({str(name)!r:.80}) and holds a text ({text!r:.80}); {REMEDY}")
    for at, one in enumerate(strings):
        if found[at] is not _Meaning.NAME and _is_json(str(one)):
            raise InputError(
                f"string {at} is a JSON object; parse them, [json.loads(line) for line in lines], or give the file"
            )
    return bool(texts)


def refuse_text(name: str) -> None:
    """Refuse a single string that cannot be the name of an input. Raises InputError."""
    if _meaning(name, []) is _Meaning.TEXT:
        raise InputError(f"one string is the name of an input, and there is none named {name!r:.80}; {REMEDY}")


def _meaning(string: str | Path, here: list[str]) -> _Meaning:
    if isinstance(string, Path):
        return _Meaning.NAME
    if "\n" in string or len(string) > (_LONGEST_PATH if "/" in string else _LONGEST_NAME):
        return _Meaning.TEXT
    if string == STDIN or string.lower().endswith(_SUFFIXES) or is_url(string) or os.path.lexists(string):
        return _Meaning.NAME
    if string.isascii() and (string.split() == [string] or "/" in string or "\\" in string):
        return _Meaning.OPEN
    return _Meaning.NAME if _is_pattern(string, here) else _Meaning.TEXT


def _is_pattern(string: str, here: list[str]) -> bool:
    """Whether a string without a slash is a pattern of files that are here; ``here`` keeps their names."""
    if "*" not in string or len(string) > _LONGEST_PATTERN:
        return False
    if not here:
        here.extend(path.name for path in Path().iterdir())
    return any(fnmatch(name, string) for name in here)


def _is_json(string: str) -> bool:
    if not string.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(string), dict)
    except (ValueError, RecursionError):
        return False


__all__ = ["REMEDY", "are_texts", "refuse_text"]
