"""Encode plain data as bytes; see :mod:`donod_fast.evaluation.judging.codec`."""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from itertools import chain, groupby

from donod_fast.evaluation.judging.codec import BUILTIN_TYPES, MAX_DEPTH, RUN, RUN_CODES, Reference, Refused

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_LENGTH = struct.Struct(">I")
_FLOAT = struct.Struct(">d")
_COMPLEX = struct.Struct(">dd")


def encode(value: Any, refer: Callable[[Any], Reference] | None = None) -> bytes:
    """Encode one value.

    Args:
        value: anything; subclasses of plain types count as the plain type.
        refer: makes a reference to a value that is not plain data; without it such a value is refused.

    Raises:
        Refused: not plain (and no ``refer``), nested deeper than ``MAX_DEPTH``, or in a cycle.
    """
    out: list[bytes] = []
    _Encoder(out, refer).write(value, 0)
    return b"".join(out)


class _Encoder:
    def __init__(self, out: list[bytes], refer: Callable[[Any], Reference] | None) -> None:
        self.out = out
        self.refer = refer

    def write(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused(f"nested more than {MAX_DEPTH} deep (or within itself)")
        kind = type(value)
        writer = _WRITERS.get(kind)
        if writer is None:
            value, writer = self._plain(value, kind)
        if writer is not None:
            writer(self, value, depth)
        elif self.refer is None:
            raise Refused(f"{kind.__name__} is not plain data")
        else:
            reference = self.refer(value)
            self.out.append((b"H" if reference.kind else b"h") + _LENGTH.pack(reference.number))
            if reference.kind:
                self.text(reference.kind[:100])

    def _plain(self, value: Any, kind: type) -> tuple[Any, Any]:
        """The underlying plain value of an instance of another class, and its writer; None if there is none."""
        if kind is type and BUILTIN_TYPES.get(value.__name__) is value:
            return value, _write_type
        for base in kind.__mro__:
            if base in _WRITERS and base is not type(None):
                return value, _WRITERS[base]
        if kind.__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", 1):
            value = value.item()
            return value, _WRITERS.get(type(value))
        for module, name, writer in _LATE_WRITERS:
            # A program that has not imported the module has no object of it.
            known = getattr(sys.modules.get(module), name, None)
            if known is not None and isinstance(value, known):
                return value, writer
        return value, None

    def text(self, value: str) -> None:
        self.blob(str.encode(value, "utf-8", "surrogatepass"))

    def blob(self, value: bytes) -> None:
        self.out.append(_LENGTH.pack(len(value)))
        self.out.append(value)

    def items(self, tag: bytes, values: Iterable[Any], depth: int) -> None:
        kept = list(values)
        self.out.append(tag + _LENGTH.pack(len(kept)))
        if len(kept) < RUN:
            for one in kept:
                self.write(one, depth + 1)
            return
        for kind, group in groupby(kept, type):
            run = list(group)
            if len(run) < RUN or not self.run(kind, run, depth):
                for one in run:
                    self.write(one, depth + 1)

    def run(self, kind: type, run: list[Any], depth: int) -> bool:
        """Write items of one type as one block; returns False if this is impossible."""
        if kind is str:
            self.out.append(b"Rs")
            self.blob(array("q", map(len, run)).tobytes())
            self.text("".join(run))
            return True
        if kind in RUN_CODES:
            try:
                block = array(RUN_CODES[kind], run).tobytes()
            except OverflowError:
                return False
            self.out.append(b"R" + RUN_CODES[kind].encode())
            self.blob(block)
            return True
        if (kind is tuple or kind is list) and run[0] and len(set(map(len, run))) == 1 and depth < MAX_DEPTH:
            self.out.append((b"Rt" if kind is tuple else b"Rl") + _LENGTH.pack(len(run[0])))
            self.items(b"", chain.from_iterable(run), depth + 1)
            return True
        return False


def _write_none(into: _Encoder, value: None, depth: int) -> None:
    into.out.append(b"N")


def _write_bool(into: _Encoder, value: bool, depth: int) -> None:
    into.out.append(b"T" if value else b"F")


def _write_int(into: _Encoder, value: int, depth: int) -> None:
    # Bytes, not digits: Python refuses to print integers of more than 4,300 digits.
    bits = int.bit_length(value)
    into.out.append(b"i")
    into.blob(int.to_bytes(value, bits // 8 + 1, "big", signed=True))


def _write_float(into: _Encoder, value: float, depth: int) -> None:
    into.out.append(b"f" + _FLOAT.pack(float.__float__(value)))


def _write_complex(into: _Encoder, value: complex, depth: int) -> None:
    into.out.append(b"c" + _COMPLEX.pack(value.real, value.imag))


def _write_str(into: _Encoder, value: str, depth: int) -> None:
    into.out.append(b"s")
    into.text(value)


def _write_bytes(into: _Encoder, value: bytes, depth: int) -> None:
    into.out.append(b"b")
    into.blob(bytes(memoryview(value)))


def _write_bytearray(into: _Encoder, value: bytearray, depth: int) -> None:
    into.out.append(b"B")
    into.blob(bytes(memoryview(value)))


def _write_range(into: _Encoder, value: range, depth: int) -> None:
    into.items(b"r", (value.start, value.stop, value.step), depth)


def _write_mapping(tag: bytes, kind: Any = dict) -> Callable[[_Encoder, Any, int], None]:
    def write(into: _Encoder, value: Any, depth: int) -> None:
        pairs = list(kind.items(value))
        into.out.append(tag + _LENGTH.pack(len(pairs)))
        for key, one in pairs:
            into.write(key, depth + 1)
            into.write(one, depth + 1)

    return write


def _write_sequence(tag: bytes, kind: Any) -> Callable[[_Encoder, Any, int], None]:
    # Use the base class's iterator: a subclass's iterator may not show the real content.
    return lambda into, value, depth: into.items(tag, kind.__iter__(value), depth)


def _write_ellipsis(into: _Encoder, value: Any, depth: int) -> None:
    into.out.append(b"E")


def _write_type(into: _Encoder, value: type, depth: int) -> None:
    into.out.append(b"y")
    into.text(value.__name__)


def _write_text_form(tag: bytes, form: Callable[[Any], str]) -> Callable[[_Encoder, Any, int], None]:
    def write(into: _Encoder, value: Any, depth: int) -> None:
        into.out.append(tag)
        into.text(form(value))

    return write


_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_WRITERS: dict[type, Callable[[_Encoder, Any, int], None]] = {
    type(None): _write_none,
    bool: _write_bool,
    int: _write_int,
    float: _write_float,
    complex: _write_complex,
    str: _write_str,
    bytes: _write_bytes,
    bytearray: _write_bytearray,
    list: _write_sequence(b"l", list),
    tuple: _write_sequence(b"t", tuple),
    set: _write_sequence(b"S", set),
    frozenset: _write_sequence(b"Z", frozenset),
    deque: _write_sequence(b"q", deque),
    range: _write_range,
    OrderedDict: _write_mapping(b"O", OrderedDict),
    Counter: _write_mapping(b"C"),
    defaultdict: _write_mapping(b"d"),
    dict: _write_mapping(b"d"),
    _VIEWS[0]: _write_sequence(b"k", _VIEWS[0]),
    _VIEWS[1]: _write_sequence(b"v", _VIEWS[1]),
    _VIEWS[2]: _write_sequence(b"m", _VIEWS[2]),
    type(...): _write_ellipsis,
}
_LATE_WRITERS: tuple[tuple[str, str, Callable[[_Encoder, Any, int], None]], ...] = (
    ("decimal", "Decimal", _write_text_form(b"D", lambda value: sys.modules["decimal"].Decimal.__str__(value))),
    ("fractions", "Fraction", _write_text_form(b"Q", lambda value: f"{value.numerator:x}/{value.denominator:x}")),
    ("datetime", "datetime", _write_text_form(b"w", lambda value: sys.modules["datetime"].datetime.isoformat(value))),
    ("datetime", "date", _write_text_form(b"a", lambda value: sys.modules["datetime"].date.isoformat(value))),
    ("datetime", "time", _write_text_form(b"o", lambda value: sys.modules["datetime"].time.isoformat(value))),
    ("datetime", "timedelta", _write_text_form(b"e", lambda it: f"{it.days} {it.seconds} {it.microseconds}")),
)
