"""Counts and sizes in words, as messages print them."""

from __future__ import annotations

from donod_fast.confidential import without_secrets


def plural(count: int, noun: str, plural_form: str | None = None) -> str:
    """A count with its noun: ``1 row``, ``2,000 rows``.

    Args:
        count: how many.
        noun: the singular form.
        plural_form: the plural form, where an s at the end does not make it (``batches``).
    """
    return f"{count:,} {noun if count == 1 else plural_form or noun + 's'}"


def byte_size(number: int) -> str:
    """Bytes in KiB, MiB or GiB: ``31 KiB``, ``437 MiB``, ``12.6 GiB``."""
    if number < 2**20:
        return f"{number / 2**10:,.0f} KiB"
    return f"{number / 2**20:,.0f} MiB" if number < 2**30 else f"{number / 2**30:,.1f} GiB"


def shortened(said: object, longest: int) -> str:
    """What a library said (an error, an answer) in one line of at most ``longest`` characters.

    Secrets are hidden before it is cut: half of a URL cannot be told from other text.
    """
    return " ".join(without_secrets(str(said)).split())[:longest]


def shown(value: object, longest: int) -> str:
    """A wrong value as a message quotes it: as Python writes it, without secrets, of at most ``longest`` characters."""
    try:
        text = without_secrets(repr(value))
    except (ValueError, RecursionError):  # more digits than Python prints, or nested too deep
        return f"a {type(value).__name__}"
    return text if len(text) <= longest else text[:longest] + "…"


__all__ = ["byte_size", "plural", "shortened", "shown"]
