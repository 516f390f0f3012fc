"""Find the Arrow type that holds the values of a column exactly, or find that none does.

A column of a table has one type; records have values. :class:`ColumnShape` looks at the values one by one, and keeps
only what decides the type. A column without an exact type is written as JSON text (:mod:`.record_tables`).
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa

MAX_DEPTH = 24
"""Objects and lists within each other; deeper values are written as JSON text."""

MAX_KEYS = 256
"""Keys of the objects in one place of a column; with more, the keys are data, and a table would be mostly nulls."""

_DECIMAL_DIGITS = 76
_EXACT_FLOAT = 1 << 53


class NoExactTypeError(Exception):
    """No Arrow type holds the values exactly. Internal: such a column becomes JSON text."""


@dataclass(slots=True)
class _Shape:
    """What the values in one place of a column have in common.

    Attributes:
        kinds: kinds of the values seen: names of JSON types, or an Arrow type.
        low: least integer, with ``high`` the greatest.
        digits: digits before the point of decimals, with ``scale`` those after it.
        objects: number of objects.
        keys: shape and number of the values of each key of objects.
        edges: pairs of keys that follow each other.
        items: shape of the items of lists.
    """

    kinds: set[Any] = field(default_factory=set)
    low: int = 0
    high: int = 0
    digits: int = 0
    scale: int = 0
    objects: int = 0
    keys: dict[str, list[Any]] = field(default_factory=dict)
    edges: set[tuple[str, str]] = field(default_factory=set)
    items: _Shape | None = None

    def add(self, value: Any, depth: int = 0) -> None:
        if value is None:
            return
        if hasattr(value, "tolist"):  # arrays and scalars of NumPy and torch
            value = value.tolist()
        if isinstance(value, str):
            if not value.isascii():
                _check_text(value)
            self.kinds.add("text")
        elif isinstance(value, bool):
            self.kinds.add("bool")
        elif isinstance(value, int):
            self.kinds.add("int")
            self.low, self.high = min(self.low, value), max(self.high, value)
        elif isinstance(value, float):
            self.kinds.add("float")
        elif isinstance(value, Mapping):
            self._add_object(value, depth)
        elif isinstance(value, list | tuple):
            if depth >= MAX_DEPTH:
                raise NoExactTypeError
            self.kinds.add("list")
            if self.items is None:
                self.items = _Shape()
            for item in value:
                self.items.add(item, depth + 1)
        elif isinstance(value, decimal.Decimal):
            self._add_decimal(value)
        elif isinstance(value, bytes | datetime.date | datetime.time | datetime.timedelta):
            self.kinds.add(pa.scalar(value).type)
        else:
            raise NoExactTypeError

    def _add_object(self, value: Mapping[Any, Any], depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise NoExactTypeError
        self.kinds.add("object")
        self.objects += 1
        for key, item in value.items():
            if item is None or not isinstance(key, str):  # Arrow cannot tell this null from a key that is not there
                raise NoExactTypeError
            entry = self.keys.get(key)
            if entry is None:
                _check_text(key)
                if len(self.keys) >= MAX_KEYS:
                    raise NoExactTypeError
                entry = self.keys[key] = [_Shape(), 0]
            entry[0].add(item, depth + 1)
            entry[1] += 1
        self.edges.update(pairwise(value))

    def _add_decimal(self, value: decimal.Decimal) -> None:
        if not value.is_finite():
            raise NoExactTypeError
        self.kinds.add("decimal")
        digits, exponent = value.as_tuple()[1:]
        assert isinstance(exponent, int)
        self.digits = max(self.digits, len(digits) + exponent)
        self.scale = max(self.scale, -exponent)

    def arrow_type(self, *, top: bool, inside: int) -> pa.DataType:
        """The exact type.

        Args:
            top: whether these are the values of the column itself; then integers and floats become floats.
            inside: number of objects around the values.
        """
        if not self.kinds:
            return pa.null()
        if self.kinds == {"int", "float"} and top and max(-self.low, self.high) <= _EXACT_FLOAT:
            return pa.float64()
        if len(self.kinds) > 1:
            raise NoExactTypeError
        (kind,) = self.kinds
        if kind == "int":
            if self.low >= -(1 << 63) and self.high < 1 << 63:
                return pa.int64()
            if self.low >= 0 and self.high < 1 << 64:
                return pa.uint64()
            raise NoExactTypeError
        if kind == "decimal":
            return self._decimal_type()
        if kind == "list":
            assert self.items is not None
            return pa.list_(self.items.arrow_type(top=False, inside=inside))
        if kind == "object":
            return self._struct_type(inside)
        named = {"text": pa.string(), "bool": pa.bool_(), "float": pa.float64()}
        return named.get(kind, kind) if isinstance(kind, str) else kind

    def _decimal_type(self) -> pa.DataType:
        precision = max(self.digits, 0) + self.scale
        if precision > _DECIMAL_DIGITS:
            raise NoExactTypeError
        return pa.decimal128(max(precision, 1), self.scale) if precision <= 38 else pa.decimal256(precision, self.scale)

    def _struct_type(self, inside: int) -> pa.DataType:
        if not self.keys:  # Parquet has no object without keys
            raise NoExactTypeError
        if inside and any(count < self.objects for _, count in self.keys.values()):
            # Tool arguments, schemas: other readers would show the keys of all rows in every row, as nulls
            raise NoExactTypeError
        order = _ordered(self.keys, self.edges)
        return pa.struct([(key, self.keys[key][0].arrow_type(top=False, inside=inside + 1)) for key in order])


def _ordered(keys: Iterable[str], edges: set[tuple[str, str]]) -> list[str]:
    """The keys in an order that agrees with all edges; of several, the one nearest to that of appearance."""
    before: dict[str, set[str]] = {key: set() for key in keys}
    for first, second in edges:
        before[second].add(first)
    order: list[str] = []
    while before:
        free = next((key for key, others in before.items() if not others), None)
        if free is None:  # two objects have the same keys in another order
            raise NoExactTypeError
        order.append(free)
        del before[free]
        for others in before.values():
            others.discard(free)
    return order


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate
        raise NoExactTypeError from error


class ColumnShape:
    """What the values of one column have in common; :meth:`arrow_type` is the type that holds them exactly."""

    def __init__(self) -> None:
        """Start with no values."""
        self._shape: _Shape | None = _Shape()

    def add(self, value: Any) -> None:
        """Look at a value; None is the null that every column may have."""
        if self._shape is None:
            return
        try:
            self._shape.add(value)
        except (NoExactTypeError, RecursionError, pa.ArrowException):
            self._shape = None

    def arrow_type(self) -> pa.DataType | None:
        """The Arrow type that gives back exactly the values seen, or None if there is none.

        Integers and floats in one column become floats, if floats hold these integers exactly. Keys of objects come
        back in their order. An object inside another one must have all keys in every row.
        """
        if self._shape is None:
            return None
        try:
            return self._shape.arrow_type(top=True, inside=0)
        except NoExactTypeError:
            return None


__all__ = ["ColumnShape"]
