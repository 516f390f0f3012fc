"""Files of tokens as dolma and OLMo-core have them: an array of ids, a mask of labels and metadata beside it.

A row is a document. ``NAME.csv.gz`` beside ``NAME.npy`` says where its documents are: then no token is read to plan.
Without it a document ends after the token that ``--document-end`` names: one pass over the tokens, in constant memory.
The mask of ``token_ids_part_0.npy`` is ``labels_mask_part_0.npy``, that of any other ``NAME.npy`` is
``labels_mask_NAME.npy``: one byte a token, 1 where the token is trained on. Without a mask every token is.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from donod_fast.data.reading.line_scan import Checkpoints
from donod_fast.data.reading.source import Checkpoint, Unmarked
from donod_fast.data.reading.streams import (
    BUFFER_BYTES,
    FileFacts,
    changed_error,
    file_errors,
    unchanged,
)
from donod_fast.data.reading.token_arrays import (
    ArrayForm,
    as_numbers,
)
from donod_fast.data.reading.token_documents import Document, metadata_of, starts_in
from donod_fast.data.token_rules import TokenRules
from donod_fast.data.types import HASH_BYTES, IGNORE_INDEX, Record
from donod_fast.system.wording import plural

TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Companion:
    """A file beside a file of tokens: its facts, of which the hash may be that of its size only, and its form."""

    facts: FileFacts
    form: ArrayForm | None = None

    def describe(self) -> dict[str, Any]:
        """The facts as JSON types."""
        form = {} if self.form is None else {"begin": self.form.begin, "count": self.form.count}
        return {**self.facts.describe("beside", 0), **form}


@dataclass(frozen=True, slots=True)
class TokenFile(Unmarked):
    """A file of tokens.

    Attributes:
        facts: the file when it was opened. With metadata only its size counts; else all its bytes were read and hashed.
        rows: number of documents.
        form: how its tokens are stored.
        rules: the tokens between documents, for a file without metadata.
        mask: the mask of labels, if there is one.
        metadata: the metadata, if there are any.
        checkpoints: rows with the byte of their first token, for a file without metadata.
    """

    facts: FileFacts
    rows: int
    form: ArrayForm
    rules: TokenRules
    mask: Companion | None
    metadata: Companion | None
    checkpoints: Checkpoints = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Hash of the tokens (or of the metadata, and the size), with the type and the mask's hash or size."""
        whole = hashlib.sha256(f"{self.form.dtype} {self.facts.digest}".encode())
        for one in (self.mask, self.metadata):
            whole.update(f" {one.facts.digest}".encode() if one is not None else b" none")
        if self.metadata is None:
            whole.update(f" {self.rules.end} {self.rules.begin}".encode())
        return f"{TOKENS} {whole.hexdigest()}"

    @property
    def reads_anywhere(self) -> bool:
        """Whether there are metadata; see :class:`Source`."""
        return self.metadata is not None

    def describe(self) -> dict[str, Any]:
        """The facts that :func:`open_tokens` and a later check need, as JSON types."""
        form = {"dtype": self.form.dtype, "begin": self.form.begin, "count": self.form.count}
        return {
            **self.facts.describe(TOKENS, self.rows),
            "digest": self.digest,
            "tokens": {**form, "document_end": self.rules.end, "document_begin": self.rules.begin},
            "mask": None if self.mask is None else self.mask.describe(),
            "metadata": None if self.metadata is None else self.metadata.describe(),
        }

    def checkpoint(self, row: int) -> Checkpoint | None:
        """The nearest checkpoint at or before a row; None if there are metadata. See :class:`Source`."""
        return self.checkpoints.before(row) if self.metadata is None and len(self.checkpoints) else None

    def checkpoint_after(self, row: int) -> int:
        """The byte of the first checkpoint at or after a row, or the file's size; -1 if there are metadata."""
        if self.metadata is not None:
            return -1
        offset = self.checkpoints.offset_after(row)
        return self.facts.size if offset is None else offset

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream documents as records with ``input_ids``, ``labels`` if there is a mask, and the metadata's fields."""
        if start >= stop:
            return
        with ExitStack() as stack:
            stack.enter_context(unchanged(self.facts))
            tokens = _Numbers(stack, self.facts, self.form)
            mask = None if self.mask is None else _mask_of(stack, self.mask)
            row = start
            for document, ids in self._documents(stack, tokens, start, stop):
                yield self._record(first_row + row, row, document, ids, mask)
                row += 1
            if row < stop:
                raise changed_error(self.facts, f"{plural(row, 'document')}, {self.rows} before")

    def _documents(self, stack: ExitStack, tokens: _Numbers, start: int, stop: int) -> Iterator[tuple[Document, Any]]:
        """Documents with their tokens; None for those that are too long."""
        if self.metadata is not None:
            stack.enter_context(unchanged(self.metadata.facts))
            documents = metadata_of(self.metadata.facts).documents(self.metadata.facts.name, start, self.form.count)
            for row, document in enumerate(documents, start):
                if row == stop:
                    return
                yield document, None if self._too_long(document) else tokens.read(document.start, document.end)
            return
        row, offset, _ = self.checkpoint(start) or (0, self.form.begin, 1)
        first = (offset - self.form.begin) // self.form.item
        for begin, end in self._bounds(tokens, first, stop - row):
            if row >= start:
                document = Document(begin, end)
                yield document, None if self._too_long(document) else tokens.read(begin, end)
            row += 1

    def _bounds(self, tokens: _Numbers, first: int, count: int) -> Iterator[tuple[int, int]]:
        """The bounds of at most so many documents from a token on, where one begins."""
        begin = first
        end_token = -1 if self.rules.end is None else self.rules.end
        at = first
        pending: list[int] = []
        for block, starts in starts_in(tokens.stream_at(first), self.form, first, end_token, self.rules.begin):
            at += len(block)
            pending = [int(start) for start in starts]
            for start in pending:
                yield begin, start
                begin, count = start, count - 1
                if not count:
                    return
        if begin < at:
            yield begin, at

    def _too_long(self, document: Document) -> bool:
        return (document.end - document.start) * self.form.item > self.facts.limits.record_bytes

    def _record(self, number: int, row: int, document: Document, ids: Any, mask: _Numbers | None) -> Record:
        name, place = self.facts.name, f"document {row}"
        length = document.end - document.start
        if ids is None:
            problem = f"the document has {length:,} tokens, {length * self.form.item:,} bytes, "
            return Record(number, name, place, None, None, problem + self.facts.limits.too_large)
        own = hashlib.sha256(f"tokens\0{document.fields!r}\0".encode("utf-8", "surrogateescape"))
        own.update(ids.astype("<u8").tobytes())
        data: dict[str, Any] = {"input_ids": ids.tolist()}
        wrong_mask: str | None = None
        if mask is not None:
            scored = mask.read(document.start, document.end)
            own.update(scored.tobytes())
            wrong = np.flatnonzero(scored > 1)
            if len(wrong):
                wrong_mask = f"the label mask holds {int(scored[wrong[0]])} at token {int(wrong[0])}, not 0 or 1"
            data["labels"] = np.where(scored == 1, ids.astype(np.int64), IGNORE_INDEX).tolist()
        data.update(document.columns())
        digest = own.digest()[:HASH_BYTES]
        return Record(number, name, place, None if wrong_mask else data, None, wrong_mask, hash=digest)


class _Numbers:
    """Ranges of a file's numbers, which are read by seeking; near ones share a request of a remote file."""

    def __init__(self, stack: ExitStack, facts: FileFacts, form: ArrayForm) -> None:
        self._facts, self._form, self._stack = facts, form, stack
        stack.enter_context(file_errors(facts.name))
        self._file = io.BufferedReader(stack.enter_context(facts.place.open_table(facts.size)), BUFFER_BYTES)

    def read(self, start: int, end: int) -> Any:
        """The numbers of a range."""
        self._file.seek(self._form.byte(start))
        content = self._file.read((end - start) * self._form.item)
        if len(content) != (end - start) * self._form.item:
            raise changed_error(self._facts, "it is shorter")
        return as_numbers(content, self._form)

    def stream_at(self, start: int) -> Any:
        """A stream of its own from a number on."""
        file = self._stack.enter_context(self._facts.place.open(self._form.byte(start), size=self._facts.size))
        return io.BufferedReader(file, BUFFER_BYTES)


def _mask_of(stack: ExitStack, mask: Companion) -> _Numbers:
    assert mask.form is not None
    stack.enter_context(unchanged(mask.facts))
    return _Numbers(stack, mask.facts, mask.form)


def hash_of_nothing() -> str:
    """The hash of a file of which only the size counts."""
    return hashlib.sha256().hexdigest()


__all__ = ["TOKENS", "Companion", "TokenFile", "hash_of_nothing"]
