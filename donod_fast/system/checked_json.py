"""JSON with a checksum of its own content, so that a flipped bit or an edit by hand is found when the file is read.

The checksum is a member of the object: SHA-256 over the other members in canonical JSON. It does not depend on white
space or on the order of keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CHECKSUM = "sha256"
"""The member that holds the checksum."""

_LINE_DIGITS = 16
"""Hex digits of the checksum of one line of a file of lines."""


class DamagedError(ValueError):
    """Content that is not what was written; the message says what is wrong, without the file's name."""


def checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 in hex over all members but the checksum."""
    plain = {key: value for key, value in data.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def with_checksum(data: Mapping[str, Any]) -> dict[str, Any]:
    """The members in JSON types, with their checksum as the last one."""
    plain = json.loads(json.dumps(data))
    plain.pop(CHECKSUM, None)
    return {**plain, CHECKSUM: checksum(plain)}


def checked_line(data: Mapping[str, Any]) -> bytes:
    """One line of a file of lines, with a short checksum as the last member."""
    plain = json.loads(json.dumps(data))
    return json.dumps({**plain, CHECKSUM: checksum(plain)[:_LINE_DIGITS]}).encode() + b"\n"


def parsed(content: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        DamagedError: it is not UTF-8, not JSON, nested too deep, or an object has a key twice.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise DamagedError(f"not UTF-8 at byte {error.start}") from error
    except RecursionError:
        raise DamagedError("nested too deep") from None
    except DamagedError:
        raise
    except ValueError as error:
        raise DamagedError(str(error) if content.strip() else "empty") from error


def parsed_object(content: bytes, *, needs_checksum: bool = False) -> dict[str, Any]:
    """Parse a JSON object and verify its checksum; the checksum is not in the result.

    Args:
        content: the file, or one line of it.
        needs_checksum: refuse an object without a checksum. Without this, an object that has none is accepted.

    Raises:
        DamagedError: it is not a JSON object, or does not have this checksum.
    """
    data = parsed(content)
    if not isinstance(data, dict):
        raise DamagedError(f"it holds a {type(data).__name__}, not an object")
    return verified(data, needs_checksum=needs_checksum)


def verified(data: Mapping[str, Any], *, needs_checksum: bool = False) -> dict[str, Any]:
    """An object without its checksum, which is verified; see :func:`parsed_object`."""
    rest = {key: value for key, value in data.items() if key != CHECKSUM}
    if CHECKSUM not in data:
        if needs_checksum:
            raise DamagedError(f"its {CHECKSUM} is missing")
        return rest
    given = data[CHECKSUM]
    try:
        wanted = checksum(rest)
    except RecursionError:
        raise DamagedError("nested too deep") from None
    if not isinstance(given, str) or given not in (wanted, wanted[:_LINE_DIGITS]):
        raise DamagedError(f"its content does not match its {CHECKSUM}: it was changed after it was written")
    return rest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DamagedError(f"the key {twice[:80]!r} is there twice")
    return found


__all__ = [
    "CHECKSUM",
    "DamagedError",
    "checked_line",
    "checksum",
    "parsed",
    "parsed_object",
    "verified",
    "with_checksum",
]
