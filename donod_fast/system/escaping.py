"""Characters that a terminal obeys, or that nobody sees: which they are, and how they are written visibly.

Text from data, templates, configs, names of files and messages of libraries may hold them. A control character moves
the cursor or changes colours, a bidirectional one reorders what is read, an invisible one hides a difference.
"""

from __future__ import annotations

import re
import unicodedata

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


__all__ = ["escaped", "is_hidden"]
