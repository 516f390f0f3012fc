"""Blocks of a report: arrays and JSON, packed into text that a page holds.

The text is base64 of zlib's format of little-endian numbers, or of JSON in ASCII; a browser unpacks it with
``DecompressionStream("deflate")``.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from donod_fast.errors import InputError
from donod_fast.system.wording import byte_size

_FINE = 50_000
"""Rows up to which numbers keep all of their digits."""

_KINDS = {"f32": "<f4", "f64": "<f8", "u32": "<u4", "u16": "<u2", "u8": "u1"}
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_FRAME = 120
"""Bytes of an element of the page around a block, at most."""

Array = NDArray[Any]


class Block(NamedTuple):
    """A named piece of data.

    Attributes:
        name: of the block.
        kind: ``json``, or the type of its numbers: ``f32``, ``f64``, ``u32``, ``u16``, ``u8``.
        text: the packed data, in letters that HTML does not change.
    """

    name: str
    kind: str
    text: str

    @property
    def size(self) -> int:
        """Bytes that it takes of the page."""
        return len(self.text) + _FRAME


def array_block(name: str, kind: str, values: Array) -> Block:
    """Pack (n,) numbers, which must fit the kind."""
    return Block(name, kind, _packed(np.ascontiguousarray(values, _KINDS[kind]).tobytes()))


def number_block(name: str, values: Array) -> Block:
    """Pack (n,) float64, NaN where a value is missing: as integers where they are, exactly up to 50,000 rows.

    Beyond, float32 where its range holds all values.
    """
    return array_block(name, number_kind(values), values)


def number_kind(values: Array) -> str:
    """The kind that :func:`number_block` packs numbers as."""
    if len(values) and bool((values >= 0).all() & (values < 2**32).all() & (values == np.floor(values)).all()):
        return "u16" if values.max() < 2**16 else "u32"
    if len(values) <= _FINE:
        return "f64"
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    fits = not len(sizes) or (sizes.min() >= _SMALLEST and sizes.max() <= _LARGEST)
    return "f32" if fits else "f64"


def json_block(name: str, content: Any) -> Block:
    """Pack JSON values; NaN and infinities become null."""
    return Block(name, "json", _packed(json_bytes(content)))


def json_bytes(content: Any) -> bytes:
    """JSON in ASCII, without NaN and infinities."""
    return json.dumps(finite(content), separators=(",", ":"), allow_nan=False).encode("ascii")


def finite(content: Any) -> Any:
    """JSON values with null in place of numbers that JSON does not have."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return content


def size_of(blocks: Iterable[Block]) -> int:
    """Bytes that blocks take of a page."""
    return sum(block.size for block in blocks)


def refuse_large(size: int, most: int) -> None:
    """Refuse a page that is larger than asked for. Raises InputError."""
    if size > most:
        raise InputError(
            f"the report takes {byte_size(size)}, more than --max-mb {most / 1e6:g}; raise it, lower --sample, or name "
            "fewer --methods"
        )


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


__all__ = [
    "Array",
    "Block",
    "array_block",
    "finite",
    "json_block",
    "json_bytes",
    "number_block",
    "number_kind",
    "refuse_large",
    "size_of",
]
