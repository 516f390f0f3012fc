"""Decode bytes to plain data; see :mod:`donod_fast.evaluation.judging.codec`."""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, deque
from itertools import accumulate, pairwise
from operator import gt

from donod_fast.evaluation.judging.codec import BUILTIN_TYPES, MAX_DEPTH, RUN_CODES, Reference, Refused

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_RUN_TAG = ord("R")
_LENGTH = struct.Struct(">I")
_FLOAT = struct.Struct(">d")
_COMPLEX = struct.Struct(">dd")


def decode(data: bytes | bytearray | memoryview, resolve: Callable[[Reference], Any] | None = None) -> Any:
    """Decode one value.

    The value may take far more memory than its bytes, and a dict or a set of hostile keys takes any time: the
    caller limits both.

    Args:
        data: output of :func:`encode`, or any bytes from a hostile sender.
        resolve: converts a reference into its local object; without it a reference is refused.

    Raises:
        Refused: the bytes are not exactly one value.
        MemoryError: the value does not fit into memory.
    """
    reader = _Decoder(data, resolve)
    try:
        value = reader.read(0)
    except (struct.error, IndexError, UnicodeError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise Refused(f"bytes that do not encode a value ({type(error).__name__})") from error
    if reader.at != len(data):
        raise Refused("bytes after the value")
    return value


class _Decoder:
    def __init__(self, data: bytes | bytearray | memoryview, resolve: Callable[[Reference], Any] | None) -> None:
        self.data = memoryview(data)  # its slices are no copies
        self.at = 0
        self.resolve = resolve

    def read(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Refused(f"nested more than {MAX_DEPTH} deep")
        tag = bytes(self.data[self.at : self.at + 1])
        reader = _READERS.get(tag)
        if reader is None:
            raise Refused(f"a value of unknown kind {tag!r}" if tag else "a value that ends early")
        self.at += 1
        return reader(self, depth)

    def number(self) -> int:
        (value,) = _LENGTH.unpack_from(self.data, self.at)
        self.at += 4
        return int(value)

    def blob(self) -> memoryview:
        size = self.number()
        if size > len(self.data) - self.at:
            raise Refused("a value that ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        return str(self.blob(), "utf-8", "surrogatepass")

    def items(self, depth: int) -> list[Any]:
        count = self.number()
        found: list[Any] = []
        while len(found) < count:
            if self.at < len(self.data) and self.data[self.at] == _RUN_TAG:
                found.extend(self.run(depth))
            else:
                found.append(self.read(depth + 1))
        if len(found) > count:
            raise Refused("more items than announced")
        return found

    def run(self, depth: int) -> Iterable[Any]:
        code = str(self.data[self.at + 1 : self.at + 2], "ascii")
        self.at += 2
        if code in ("t", "l"):
            if depth >= MAX_DEPTH:
                raise Refused(f"nested more than {MAX_DEPTH} deep")
            width = self.number()
            flat = self.items(depth + 1)
            if not width or len(flat) % width:
                raise Refused("rows of unequal width")
            rows = zip(*[iter(flat)] * width, strict=True) if width <= len(flat) else ()
            return rows if code == "t" else map(list, rows)
        if code == "s":
            ends = list(accumulate(self.numbers("q"), initial=0))
            text = self.text()
            if ends[-1] != len(text) or min(ends) < 0 or any(map(gt, ends, ends[1:])):
                raise Refused("texts of other lengths than announced")
            return [text[first:last] for first, last in pairwise(ends)]
        if code not in RUN_CODES.values():
            raise Refused("a block of an unknown kind")
        return self.numbers(code)

    def numbers(self, code: str) -> list[Any]:
        kind: Any = code
        return self.blob().cast(kind).tolist()

    def pairs(self, depth: int) -> list[tuple[Any, Any]]:
        count = self.number()
        if count > len(self.data) - self.at:
            raise Refused("a value that ends early")
        return [(self.read(depth + 1), self.read(depth + 1)) for _ in range(count)]


def _read_float(source: _Decoder, depth: int) -> float:
    (value,) = _FLOAT.unpack_from(source.data, source.at)
    source.at += 8
    return float(value)


def _read_complex(source: _Decoder, depth: int) -> complex:
    real, imag = _COMPLEX.unpack_from(source.data, source.at)
    source.at += 16
    return complex(real, imag)


def _read_reference(owned: bool) -> Callable[[_Decoder, int], Any]:
    def read(source: _Decoder, depth: int) -> Any:
        number = source.number()
        kind = "" if owned else source.text()
        if source.resolve is None:
            raise Refused(f"{kind} is not plain data")
        return source.resolve(Reference(number, kind))

    return read


def _read_items_view(source: _Decoder, depth: int) -> Any:
    pairs = source.items(depth)
    if any(type(pair) is not tuple for pair in pairs):
        raise Refused("items of a mapping that are not pairs")
    return dict(pairs).items()


def _read_type(source: _Decoder, depth: int) -> type:
    name = source.text()
    if name not in BUILTIN_TYPES:
        raise Refused("a type that is not built in")
    return BUILTIN_TYPES[name]


def _read_decimal(source: _Decoder, depth: int) -> Any:
    from decimal import Decimal

    return Decimal(source.text())


def _read_fraction(source: _Decoder, depth: int) -> Any:
    from fractions import Fraction

    above, _, below = source.text().partition("/")
    return Fraction(int(above, 16), int(below, 16))


def _read_moment(kind: str) -> Callable[[_Decoder, int], Any]:
    def read(source: _Decoder, depth: int) -> Any:
        import datetime

        return getattr(datetime, kind).fromisoformat(source.text())

    return read


def _read_duration(source: _Decoder, depth: int) -> Any:
    from datetime import timedelta

    days, seconds, microseconds = (int(part) for part in source.text().split())
    return timedelta(days, seconds, microseconds)


_READERS: dict[bytes, Callable[[_Decoder, int], Any]] = {
    b"N": lambda source, depth: None,
    b"T": lambda source, depth: True,
    b"F": lambda source, depth: False,
    b"E": lambda source, depth: ...,
    b"i": lambda source, depth: int.from_bytes(source.blob(), "big", signed=True),
    b"f": _read_float,
    b"c": _read_complex,
    b"s": lambda source, depth: source.text(),
    b"b": lambda source, depth: bytes(source.blob()),
    b"B": lambda source, depth: bytearray(source.blob()),
    b"l": lambda source, depth: source.items(depth),
    b"t": lambda source, depth: tuple(source.items(depth)),
    b"S": lambda source, depth: set(source.items(depth)),
    b"Z": lambda source, depth: frozenset(source.items(depth)),
    b"q": lambda source, depth: deque(source.items(depth)),
    b"r": lambda source, depth: range(*source.items(depth)),
    b"d": lambda source, depth: dict(source.pairs(depth)),
    b"O": lambda source, depth: OrderedDict(source.pairs(depth)),
    b"C": lambda source, depth: Counter(dict(source.pairs(depth))),
    b"k": lambda source, depth: dict.fromkeys(source.items(depth)).keys(),
    b"v": lambda source, depth: dict(enumerate(source.items(depth))).values(),
    b"m": _read_items_view,
    b"y": _read_type,
    b"H": _read_reference(owned=False),
    b"h": _read_reference(owned=True),
    b"D": _read_decimal,
    b"Q": _read_fraction,
    b"w": _read_moment("datetime"),
    b"a": _read_moment("date"),
    b"o": _read_moment("time"),
    b"e": _read_duration,
}
