"""Canonical JSON: equal records have equal bytes, so that they can be hashed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes | None:
    """Write a value as ASCII JSON with sorted keys; values that JSON lacks are written as their ``repr``.

    Returns None if this is impossible: keys that cannot be sorted, a value that contains itself,
    an integer with more digits than Python prints, or nesting too deep.
    """
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=True, default=_spelt).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        return None


def _spelt(value: Any) -> Any:
    # Arrays and tensors are written by value: their repr leaves out the middle.
    return value.tolist() if hasattr(value, "tolist") else repr(value)
