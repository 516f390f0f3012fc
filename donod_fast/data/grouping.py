"""Divide a stream of records into groups that fit in memory: by their number, and by the size of their content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from donod_fast.data.types import Record

GROUP_BYTES = 1 << 26
"""Content of the records of a group, after which the group ends. One record may be larger."""


def grouped(records: Iterable[Record], most: int, size: int | None = None) -> Iterator[list[Record]]:
    """Divide records into groups, in order.

    Args:
        records: the records; a group is read when it is asked for.
        most: records of a group at most.
        size: content in bytes, roughly, that ends a group; None for ``GROUP_BYTES``.
    """
    limit = GROUP_BYTES if size is None else size
    group: list[Record] = []
    held = 0
    for record in records:
        group.append(record)
        held += content_size(record)
        if len(group) >= most or held >= limit:
            yield group
            group, held = [], 0
    if group:
        yield group


def content_size(record: Record) -> int:
    """Size of a record in bytes, roughly: its own text, else the texts and the number of the other values."""
    return len(record.raw) if record.raw is not None else _size(record.data)


def _size(value: Any) -> int:
    size, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str | bytes):
            size += len(one)
        elif isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list | tuple):
            # Numbers and short texts count alike; tokens are the longest lists.
            if one and isinstance(one[0], int | float):
                size += 8 * len(one)
            else:
                left += one
        else:
            size += int(getattr(one, "nbytes", 8))
    return size


__all__ = ["GROUP_BYTES", "content_size", "grouped"]
