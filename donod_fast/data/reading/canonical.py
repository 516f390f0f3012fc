"""One spelling for equal records, to hash them by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes | None:
    """Spell a value with sorted keys in ASCII; what JSON lacks is spelt by its ``repr``.

    Returns None where there is no such spelling: keys that do not sort, a value that holds itself,
    an integer with more digits than Python prints, nesting too deep.
    """
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=True, default=_spelt).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        return None


def _spelt(value: Any) -> Any:
    # Arrays and tensors by their values: their repr leaves the middle out.
    return value.tolist() if hasattr(value, "tolist") else repr(value)
