"""Structs in the compact protocol of Thrift, as the footers and page headers of Parquet files hold them.

See https://github.com/apache/parquet-format.
"""

from __future__ import annotations

from typing import Any

_DEEPEST = 16


class Struct:
    """Reads a struct; raises IndexError where the bytes end before it, or nest too deep.

    Args:
        content: bytes that begin with the struct.
        whole: give texts and lists too, not only numbers and structs.
    """

    def __init__(self, content: bytes, *, whole: bool = False) -> None:
        self._content, self._at, self._whole = content, 0, whole

    def read(self) -> tuple[dict[int, Any], int]:
        """The struct's values by field, and the bytes that it takes."""
        return self._struct(0), self._at

    def _struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._number()
            fields[field] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise IndexError
        if kind in (1, 2):  # true and false
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            size = self._varint()
            begin = self._at
            self._skip(size)
            return self._content[begin : self._at] if self._whole else None
        if kind in (9, 10):
            head = self._byte()
            found = []
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                value = self._value(head & 15, depth + 1)
                if self._whole:
                    found.append(value)
            return found if self._whole else None
        if kind == 12:
            return self._struct(depth + 1)
        raise IndexError

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._content):
            raise IndexError

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 63:
                raise IndexError

    def _number(self) -> int:
        found = self._varint()
        return (found >> 1) ^ -(found & 1)


__all__ = ["Struct"]
