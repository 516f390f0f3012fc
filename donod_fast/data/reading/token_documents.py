"""Where the documents of a file of tokens begin and end: by its metadata, or by the token that ends a document."""

from __future__ import annotations

import csv
import functools
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from donod_fast.data.reading.streams import FileFacts, peeking, unchanged
from donod_fast.data.reading.token_arrays import ArrayForm, as_numbers
from donod_fast.errors import CorpusError

SCAN_BYTES = 1 << 20
FIELDS = ("id", "src", "loc")
"""The columns of dolma's metadata after the start and the end of a document."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document: its first token, one past its last, and the further fields of its line of metadata."""

    start: int
    end: int
    fields: tuple[str, ...] = ()

    def columns(self) -> dict[str, str]:
        """The further fields as columns of a record; empty ones are absent."""
        names = (*FIELDS, *(f"field_{at}" for at in range(len(FIELDS) + 2, len(self.fields) + 2)))
        return {name: value for name, value in zip(names, self.fields, strict=False) if value}


def parsed_lines(name: str, stream: BinaryIO, number: int, count: int) -> Iterator[Document]:
    """The documents of lines of metadata.

    Args:
        name: the metadata, for messages.
        stream: plain bytes, from the beginning of a line.
        number: that line's number, from 0.
        count: tokens of the file.

    Raises:
        CorpusError: a line does not begin with two numbers of tokens of the file, or a document begins before the one
            before it ends.
    """
    before = 0
    for at, line in enumerate(stream, number + 1):
        try:
            start_text, end_text, *fields = next(csv.reader([line.decode("utf-8")]), [])
            start, end = int(start_text), int(end_text)
        except (ValueError, csv.Error) as error:
            raise CorpusError(
                f"{name}, line {at}: not the start and end of a document ({str(error)[:100]}); write the metadata again"
            ) from error
        if not before <= start <= end <= count:
            wrong = f"it begins before the one before it ends ({before:,})" if start < before else f"{count:,} tokens"
            raise CorpusError(
                f"{name}, line {at}: a document from {start:,} to {end:,}, but "
                f"{wrong if start < before else f'the file has {wrong}'}; these are not the metadata of this file"
            )
        before = end
        yield Document(start, end, tuple(fields))


class Metadata:
    """The lines of a metadata file, plain in a temporary file, with 8 bytes in memory for each."""

    def __init__(self, facts: FileFacts) -> None:
        self._file: Any = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._offsets = array("q")
        at = 0
        with (
            unchanged(facts),
            peeking(facts.name, facts.place, facts.compression, size=facts.size, limits=facts.limits) as stream,
        ):
            for line in stream:
                self._offsets.append(at)
                self._file.write(line)
                at += len(line)
        self._file.flush()

    def __len__(self) -> int:
        return len(self._offsets)

    def documents(self, name: str, start: int, count: int) -> Iterator[Document]:
        """The documents from one on; see :func:`parsed_lines`."""
        if start < len(self._offsets):
            with Path(self._file.name).open("rb") as own:  # each reader has its own position
                own.seek(self._offsets[start])
                yield from parsed_lines(name, own, start, count)


@functools.lru_cache(maxsize=2)
def metadata_of(facts: FileFacts) -> Metadata:
    """The metadata of a file, which are read once in a process and kept for the two files that were read last."""
    return Metadata(facts)


def starts_in(stream: BinaryIO, form: ArrayForm, first: int, end: int, begin: int | None) -> Iterator[tuple[Any, Any]]:
    """Blocks of tokens, and where documents begin in them.

    Args:
        stream: the bytes of the file from a token on.
        form: how they are stored.
        first: the number of that token.
        end: the token that ends a document.
        begin: the token that must follow; None if any may.

    Yields:
        A block's tokens, and the numbers of the tokens that begin a document, the first token of the stream aside.
    """
    before: Any = None
    while True:
        block = _block(stream, form)
        if not len(block):
            return
        together = block if before is None else np.concatenate([before, block])
        found = together[:-1] == end
        if begin is not None:
            found &= together[1:] == begin
        yield block, np.flatnonzero(found) + (first + 1 if before is None else first)
        first += len(block)
        before = block[-1:]


def _block(stream: BinaryIO, form: ArrayForm) -> Any:
    pieces: list[bytes] = []
    missing = SCAN_BYTES
    while missing and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    content = b"".join(pieces)
    return as_numbers(content[: len(content) - len(content) % form.item], form)


__all__ = ["FIELDS", "Document", "Metadata", "metadata_of", "parsed_lines", "starts_in"]
