"""Characters that a terminal obeys, or that nobody sees: which they are, and how they are written visibly.

Text from data, templates, configs, names of files and messages of libraries may hold them. A control character moves
the cursor or changes colours, a bidirectional one reorders what is read, an invisible one hides a difference.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

OPEN, CLOSE = "⟦", "⟧"
"""Marks around scored text where there is no colour."""

NEW_LINE = "⏎"

_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Categories without a picture: controls, formats (bidirectional ones), surrogates, private, unassigned, separators."""

# Characters of other categories that Unicode displays as nothing (Default_Ignorable_Code_Point), and three that fonts
# draw blank.
_BLANK = frozenset(
    (
        0x034F,  # combining grapheme joiner
        *(0x115F, 0x1160, 0x3164, 0xFFA0),  # Hangul fillers
        *(0x17B4, 0x17B5),  # Khmer inherent vowels
        *range(0x180B, 0x1810),  # Mongolian variation selectors
        0x2800,  # Braille pattern blank
        *range(0xFE00, 0xFE10),  # variation selectors
        0x1D159,  # musical symbol null notehead
        0x16FE4,  # Khitan small script filler
        *range(0xE0100, 0xE01F0),  # variation selectors
    )
)
_UNSURE = re.compile(r"[^ -~\n]")
_NOT_PLAIN = re.compile(r"[^ -~]")
_NOT_READ = re.compile(r"[^ -~\n\t]")
_OWN_MARKS = frozenset((OPEN, CLOSE, NEW_LINE))
_VISIBLE_SPACES = frozenset(" \u3000")


def is_hidden(character: str) -> bool:
    """Whether a character has no picture of its own: a control (line ends too), bidirectional or invisible one."""
    return unicodedata.category(character) in _UNSEEN or ord(character) in _BLANK


def escaped(text: str) -> str:
    r"""Text in which every hidden character but the line end is written as Python writes it: ``\x1b``, ``\u202e``.

    Escaping twice changes nothing more.
    """
    return _UNSURE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return character.encode("unicode_escape").decode("ascii") if is_hidden(character) else character


def visible(text: str) -> str:
    """Text with every control, invisible or misleading character replaced by its name; line ends as ``⏎``.

    A real line end follows each ``⏎``. Unlike :func:`escaped` this is for pages and bars: nothing can be mistaken for
    the marks that are written around it.
    """
    return _NOT_PLAIN.sub(_name, text)


def readable(text: str) -> str:
    """Text in which every hidden character but tabs and line ends is replaced by its name, ``⟨U+202E⟩``.

    Text that :func:`visible` made stays as it is.
    """
    return _NOT_READ.sub(_hidden_name, text)


def one_line(text: str) -> str:
    """Visible text without real line ends."""
    return visible(text).replace("\n", "")


def _hidden_name(found: re.Match[str]) -> str:
    character = found[0]
    return f"⟨U+{ord(character):04X}⟩" if is_hidden(character) else character


def _name(found: re.Match[str]) -> str:
    return _named(found[0])


@lru_cache(maxsize=20_000)  # a corpus has few different characters
def _named(character: str) -> str:
    if character == "\n":
        return NEW_LINE + "\n"
    if character == "\t":
        return "⇥"
    is_odd_space = unicodedata.category(character) == "Zs" and character not in _VISIBLE_SPACES
    if character in _OWN_MARKS or is_odd_space or is_hidden(character):
        return f"⟨U+{ord(character):04X}⟩"
    return character


__all__ = ["CLOSE", "NEW_LINE", "OPEN", "escaped", "is_hidden", "one_line", "readable", "visible"]
