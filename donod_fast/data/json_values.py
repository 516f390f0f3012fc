"""Values of records as JSON text. Nothing stops it: what JSON lacks is written as text that keeps every digit."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
from collections.abc import Mapping
from typing import Any


def to_json(value: Any) -> bytes:
    """A value as compact JSON in UTF-8; as ASCII with escapes if it holds a lone surrogate, which UTF-8 cannot hold.

    NaN and the infinities are written as ``NaN``, ``Infinity`` and ``-Infinity``, which our reader, Python and pandas
    accept. Decimals become text with all their digits, bytes base64 text, dates and times ISO 8601 text, arrays lists.

    Raises:
        TypeError: a value of another type.
        ValueError: a value that contains itself.
        RecursionError: nesting too deep.
    """
    options: dict[str, Any] = {"separators": (",", ":"), "default": plain}
    try:
        return json.dumps(value, ensure_ascii=False, **options).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, **options).encode("ascii")


def fits_json(value: Any) -> bool:
    """Whether :func:`to_json` can write the value."""
    try:
        to_json(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def plain(value: Any) -> Any:
    """A value of a type that JSON lacks, as one that it has.

    Raises:
        TypeError: a type that has no such form.
    """
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        microseconds = value // datetime.timedelta(microseconds=1)
        return duration_text(microseconds * 1000)
    if isinstance(value, decimal.Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy and torch
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


def duration_text(nanoseconds: int) -> str:
    """A duration in nanoseconds as ISO 8601, for example ``PT1.5S``."""
    seconds = decimal.Decimal(nanoseconds).scaleb(-9).normalize()
    return f"{'-' if seconds < 0 else ''}PT{abs(seconds):f}S"


__all__ = ["duration_text", "fits_json", "plain", "to_json"]
