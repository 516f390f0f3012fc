"""Canonical JSON: equal records have equal bytes, so that they can be hashed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from donod_fast.data.json_values import plain

_EXACT_FLOAT = 1 << 53


def canonical_json(value: Any) -> bytes | None:
    """Write a value as ASCII JSON with sorted keys; dates, decimals, bytes and arrays as in JSON files, other
    values that JSON lacks as their ``repr``.

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
    # By value, as in a JSON file of the same record: the repr of arrays and tensors leaves out the middle.
    try:
        return plain(value)
    except (TypeError, ValueError):
        return repr(value)


def record_content(data: Mapping[str, Any]) -> bytes | None:
    """A record in canonical JSON, so that a table gives the same bytes as JSON does: without null keys, at any depth,
    and with whole numbers as integers (a column of a table that has 1 and 2.5 holds 1.0).

    Returns None where :func:`canonical_json` does.
    """
    try:
        return canonical_json(_as_anywhere(data))
    except RecursionError:
        return None


def _as_anywhere(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_anywhere(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_as_anywhere(item) for item in value]
    if isinstance(value, float) and abs(value) <= _EXACT_FLOAT and value.is_integer():
        return int(value)
    return value
