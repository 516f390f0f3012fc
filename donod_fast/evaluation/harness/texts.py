"""Texts of benchmark files that a tokenizer can read."""

from __future__ import annotations

from typing import Any


def is_text(value: Any) -> bool:
    """Whether a value is a text, not blank, of characters that have a UTF-8 form (JSON may hold half a character)."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


__all__ = ["is_text"]
