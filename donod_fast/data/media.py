"""Images, audio and video in records: refused by name, or left out where the text alone is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from donod_fast.data.conversations import CONTENT_KEYS, as_list, shown
from donod_fast.data.record_columns import Columns
from donod_fast.data.types import SampleError, Status

KINDS = ("image", "audio", "video")
COLUMNS = (*KINDS, *(f"{kind}s" for kind in KINDS))
"""Columns of a record and keys of a message that hold images, audio or video."""

_PARTS = (*KINDS, *(f"{kind}_url" for kind in KINDS), *(f"input_{kind}" for kind in KINDS))
"""Types of content parts that are no text, and the keys of such parts that have no type."""

REMEDY = "only text can be scored; --text-only scores the text of the record alone"


def check_columns(columns: Columns, more: tuple[str, ...], *, text_only: bool) -> None:
    """Refuse a record with images, audio or video in a column of its own.

    Args:
        columns: the record.
        more: further columns that hold such values.
        text_only: accept it; the column then stays unread.

    Raises:
        SampleError: names the column.
    """
    for name in (*COLUMNS, *more):
        if not text_only and name in columns and not columns.was_read(name) and _holds_media(columns.peek(name)):
            raise SampleError(Status.UNKNOWN_FORMAT, f"{name} holds images, audio or video; {REMEDY}")


def text_turns(value: Any, column: str, columns: Columns, *, text_only: bool) -> Any:
    """The turns of a column without images, audio and video in their contents and keys.

    Args:
        value: the column's value; what is no list of messages is returned as it is.
        column: its name, for messages.
        columns: the record, which notes what is left out.
        text_only: leave such parts out; otherwise they are refused.

    Raises:
        SampleError: names the first such part.
    """
    items = as_list(value)
    if items is None:
        return value
    return [
        _text_turn(item, f"{column}[{number}]", column, columns, text_only) if isinstance(item, Mapping) else item
        for number, item in enumerate(items)
    ]


def _text_turn(
    item: Mapping[str, Any], place: str, column: str, columns: Columns, text_only: bool
) -> Mapping[str, Any]:
    changed: dict[str, Any] | None = None
    for key in COLUMNS:
        if key in item and _holds_media(item[key]):
            if not text_only:
                raise SampleError(Status.UNKNOWN_FORMAT, f"{place} has {key}; {REMEDY}")
            changed = {name: one for name, one in (item if changed is None else changed).items() if name != key}
            columns.leave_out(f"{column}: {key}")
    for key in CONTENT_KEYS:
        parts = as_list(item.get(key))
        if parts is None:
            continue
        kinds = [_kind(part) for part in parts]
        found = next((number for number, kind in enumerate(kinds) if kind is not None), None)
        if found is None:
            continue
        if not text_only:
            detail = f"{place}: {key}[{found}] is a part of type {shown(kinds[found])}; {REMEDY}"
            raise SampleError(Status.UNKNOWN_FORMAT, detail)
        for kind in kinds:
            if kind is not None:
                columns.leave_out(f"{column}: parts of type {kind}")
        kept = [part for part, kind in zip(parts, kinds, strict=True) if kind is None]
        changed = {**(item if changed is None else changed), key: kept}
    return item if changed is None else changed


def _kind(part: object) -> str | None:
    """The type of a content part that is an image, audio or video; None for any other."""
    if not isinstance(part, Mapping):
        return None
    kind = part.get("type")
    if isinstance(kind, str):
        return kind if kind in _PARTS else None
    return next((key for key in _PARTS if part.get(key) is not None), None)


def _holds_media(value: object) -> bool:
    """Whether a value may be an image, audio or video: a path, bytes, an object, or a list with one of these."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, Mapping):
        return any(one is not None for one in value.values())
    items = as_list(value)
    if items is not None:
        return any(_holds_media(one) or isinstance(one, int | float) for one in items)
    return not (value is None or isinstance(value, bool | int | float) or (isinstance(value, bytes) and not value))


__all__ = ["check_columns", "text_turns"]
