"""Arrays of token ids without a header, as dolma and OLMo-core write them: their types, and what cannot be right."""

from __future__ import annotations

import ast
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from donod_fast.data.token_rules import DTYPES
from donod_fast.errors import CorpusError

MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 1 << 16
_LOOK_ITEMS = 1 << 14
"""Tokens at the beginning that are looked at for signs of a wrong type."""

_LARGEST_VOCABULARY = 1 << 22
_DESCR = re.compile(r"[<>|=]?[uib]\d")


@dataclass(frozen=True, slots=True)
class ArrayForm:
    """How the numbers of a file are stored.

    Attributes:
        dtype: NumPy's text of the type, with the order of bytes.
        begin: the byte where the first number is.
        count: how many there are.
    """

    dtype: str
    begin: int
    count: int

    @property
    def item(self) -> int:
        """Bytes of a number."""
        return int(np.dtype(self.dtype).itemsize)

    def byte(self, index: int) -> int:
        """The byte where a number is stored."""
        return self.begin + index * self.item


def form_of(name: str, head: bytes, size: int, dtype: str | None) -> ArrayForm:
    """How a file's numbers are stored.

    Args:
        name: the file, for messages.
        head: its first ``64 KiB``.
        size: its bytes.
        dtype: the type if the file has no header; None if it is not known.

    Raises:
        CorpusError: the type is not known, or the size is no multiple of it, or the header is of no list of integers.
    """
    if head.startswith(MAGIC):
        return _form_of_header(name, head, size)
    if dtype is None:
        raise CorpusError(
            f"{name}: an array without a header, whose type of numbers is not known; name it: --token-dtype uint16 (or "
            "uint32 if the vocabulary has more than 65,536 tokens)"
        )
    form = ArrayForm(np.dtype(dtype).newbyteorder("<").str, 0, size // np.dtype(dtype).itemsize)
    _refuse_remainder(name, form, size)
    return form


def _form_of_header(name: str, head: bytes, size: int) -> ArrayForm:
    try:
        major = head[6]
        width, at = (2, 10) if major == 1 else (4, 12)
        length = int.from_bytes(head[8 : 8 + width], "little")
        if at + length > len(head):
            raise ValueError(f"it has {length:,} bytes")
        facts = ast.literal_eval(head[at : at + length].decode("latin-1"))
        descr, shape = str(facts["descr"]), facts["shape"]
    except (ValueError, KeyError, TypeError, SyntaxError, IndexError, RecursionError, MemoryError) as error:
        raise CorpusError(f"{name}: the header of this NumPy file cannot be read ({error}); write it again") from error
    if not _DESCR.fullmatch(descr) or not isinstance(shape, tuple) or len(shape) != 1:
        raise CorpusError(f"{name}: a NumPy file of {descr} with shape {shape}; tokens are one row of integers")
    form = ArrayForm(descr, at + length, int(shape[0]))
    if form.byte(form.count) != size:
        raise CorpusError(
            f"{name}: the header tells of {form.count:,} numbers, {form.byte(form.count):,} bytes in all, but the file "
            f"has {size:,}; fetch it again"
        )
    return form


def _refuse_remainder(name: str, form: ArrayForm, size: int) -> None:
    if size % form.item:
        raise CorpusError(
            f"{name}: {size:,} bytes are no whole number of tokens of {form.item} bytes ({np.dtype(form.dtype).name}); "
            "name the right --token-dtype, or fetch the file again"
        )


def refuse_wrong_type(name: str, head: bytes, form: ArrayForm) -> None:
    """Refuse a type that the first numbers show to be wrong. Raises CorpusError.

    Tokens read with half of their bytes are followed by zeros; tokens read as larger numbers are far beyond any
    vocabulary.
    """
    body = head[form.begin :]
    numbers = np.frombuffer(body[: len(body) - len(body) % form.item], form.dtype)[:_LOOK_ITEMS]
    if len(numbers) < 8 or head.startswith(MAGIC):
        return
    kind = np.dtype(form.dtype).name
    if not numbers[1::2].any() and numbers[::2].any():
        wider = DTYPES[min(DTYPES.index(kind) + 1, 3)]
        raise CorpusError(
            f"{name}: every second number is 0 as {kind}; these are tokens of {wider}: --token-dtype {wider}"
        )
    if (numbers >= _LARGEST_VOCABULARY).mean() > 0.5:
        largest = int(numbers.max())
        raise CorpusError(
            f"{name}: most numbers are beyond any vocabulary as {kind} (up to {largest:,}); name the right "
            "--token-dtype, as uint16"
        )


def head_of(file: io.RawIOBase) -> bytes:
    """The first bytes of a file, for :func:`form_of`."""
    pieces: list[bytes] = []
    missing = _HEADER_BYTES
    while missing and (piece := file.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def as_numbers(content: Any, form: ArrayForm) -> Any:
    """Bytes of a file as an array of its numbers."""
    return np.frombuffer(content, form.dtype)


__all__ = ["ArrayForm", "as_numbers", "form_of", "head_of", "refuse_wrong_type"]
