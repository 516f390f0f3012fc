"""Methods in which reference sets take turns (``rds-round-robin``): names and columns; see ``round_robin.py``."""

from __future__ import annotations

from collections.abc import Collection

from donod_fast.errors import InputError

ENDING = "-round-robin"


def turn_column(method: str) -> str | None:
    """The name in front of ``-round-robin``; None for another method."""
    return method.removesuffix(ENDING) if method.endswith(ENDING) and method != ENDING else None


def turn_columns(method: str, present: Collection[str]) -> list[str]:
    """The columns that take turns, in the order of ``present``.

    Raises:
        InputError: there is no such column. With one set the method is the column's own ranking.
    """
    name = turn_column(method)
    assert name is not None
    found = [one for one in present if one.startswith(name + ":")] or [one for one in present if one == name]
    if not found:
        raise InputError(
            f"method {method} needs columns {name}:SET, which are missing from some or all parts; add them with "
            "`donod-fast score … --signals NAME --reference A --reference B --out DIR`, with the same data, model and "
            "folder as before"
        )
    return found


__all__ = ["ENDING", "turn_column", "turn_columns"]
