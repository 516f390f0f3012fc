"""Text from data as people can read it: what a terminal or a page would obey or hide is written by name."""

from __future__ import annotations

import unicodedata

from donod_fast.system.escaping import is_hidden

OPEN, CLOSE = "⟦", "⟧"
"""Marks around scored text where there is no colour."""

NEW_LINE = "⏎"
_OWN_MARKS = frozenset((OPEN, CLOSE, NEW_LINE))
_VISIBLE_SPACES = frozenset(" \u3000")


def visible(text: str) -> str:
    """Text with every control, invisible or misleading character replaced by its name; line ends as ``⏎``.

    A real line end follows each ``⏎``.
    """
    return "".join(map(_visible, text))


def one_line(text: str) -> str:
    """Visible text without real line ends."""
    return visible(text).replace("\n", "")


def _visible(character: str) -> str:
    if character == "\n":
        return NEW_LINE + "\n"
    if character.isascii() and character.isprintable():
        return character
    if character == "\t":
        return "⇥"
    is_odd_space = unicodedata.category(character) == "Zs" and character not in _VISIBLE_SPACES
    if character in _OWN_MARKS or is_odd_space or is_hidden(character):
        return f"⟨U+{ord(character):04X}⟩"
    return character


__all__ = ["CLOSE", "NEW_LINE", "OPEN", "one_line", "visible"]
