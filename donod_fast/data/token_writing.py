"""Chosen documents of files of tokens → files of the same kind: tokens, mask of labels and metadata."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from donod_fast.data.reading.source import Source
from donod_fast.data.reading.token_arrays import MAGIC
from donod_fast.data.reading.token_documents import FIELDS
from donod_fast.data.reading.token_files import TokenFile
from donod_fast.data.reading.token_opening import METADATA, SUFFIX, mask_name
from donod_fast.data.record_files import new_file, refuse_existing
from donod_fast.data.types import Record
from donod_fast.errors import InputError

_HEADER_BYTES = 128


def token_sources(sources: Sequence[Source]) -> list[TokenFile]:
    """The sources, if every one is a file of tokens; else none."""
    found = [source for source in sources if isinstance(source, TokenFile)]
    return found if len(found) == len(sources) else []


def refuse_tokens(out: Path, sources: Sequence[Source]) -> None:
    """Refuse to write rows that one file of tokens cannot hold unchanged.

    Raises:
        InputError: rows of other inputs, or files of different types, or only some with a mask.
    """
    files = token_sources(sources)
    if not files:
        raise InputError(
            f"{out}: only documents of files of tokens go into one unchanged; end the name in .jsonl, .json or .parquet"
        )
    for other in files[1:]:
        for what, one, two in (
            ("types of numbers", files[0].form.dtype, other.form.dtype),
            ("headers (one has none)", files[0].form.begin > 0, other.form.begin > 0),
            ("masks (one has none)", files[0].mask is None, other.mask is None),
        ):
            if one != two:
                raise InputError(
                    f"{files[0].facts.name} and {other.facts.name} have different {what}, so one file cannot hold the "
                    "documents of both unchanged; end the name in .jsonl, or score the files apart"
                )


def write_tokens(sources: Sequence[TokenFile], records: Iterable[Record], out: Path, overwrite: bool) -> int:
    """Write documents, and return their number. Each file is complete or absent, the tokens last.

    Args:
        sources: the files of the corpus, which agree in type and mask.
        records: the documents as they were read.
        out: the file of tokens; the mask and the metadata have the names that belong to it. Metadata are written if a
            source has them.
        overwrite: replace files that are there.

    Raises:
        StoreError: a file is there and may not be replaced, or cannot be written.
    """
    first = sources[0]
    mask = out.with_name(mask_name(out.name)) if first.mask is not None else None
    metadata = out.with_name(out.name.removesuffix(SUFFIX) + METADATA)
    keeps = any(source.metadata is not None for source in sources)
    for path in (out, mask, metadata if keeps else None):
        if path is not None:
            refuse_existing(path, overwrite)
    written = rows = 0
    with ExitStack() as stack:
        # Closed in the other order: the tokens are last, so that they are never there without what belongs to them
        ids_file = stack.enter_context(new_file(out, overwrite))
        mask_file = None if mask is None else stack.enter_context(new_file(mask, overwrite))
        lines: Any = None
        if keeps:
            packed = gzip.GzipFile(
                filename="", mode="wb", fileobj=stack.enter_context(new_file(metadata, overwrite)), mtime=0
            )
            text = stack.enter_context(io.TextIOWrapper(stack.enter_context(packed), encoding="utf-8", newline=""))
            lines = csv.writer(text, lineterminator="\n")
        ids_file.write(bytes(_HEADER_BYTES if first.form.begin else 0))
        for record in records:
            data = record.data or {}
            ids = np.array(data["input_ids"], first.form.dtype)
            ids_file.write(ids.tobytes())
            if mask_file is not None:
                mask_file.write((np.array(data["labels"], np.int64) >= 0).tobytes())
            if lines is not None:
                lines.writerow([written, written + len(ids), *_fields(data)])
            written, rows = written + len(ids), rows + 1
        if first.form.begin:
            ids_file.seek(0)
            ids_file.write(_header(first.form.dtype, written))
    return rows


def _fields(data: Any) -> list[str]:
    named = [str(data.get(name, "")) for name in FIELDS]
    more: list[str] = []
    while (name := f"field_{len(FIELDS) + 2 + len(more)}") in data:
        more.append(str(data[name]))
    found = [*named, *more]
    while found and not found[-1]:
        found.pop()
    return found


def _header(dtype: str, count: int) -> bytes:
    """The header of a NumPy file, version 1.0, filled up to ``_HEADER_BYTES``."""
    facts = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': ({count},), }}"
    length = (_HEADER_BYTES - 10).to_bytes(2, "little")
    return MAGIC + b"\x01\x00" + length + facts.ljust(_HEADER_BYTES - 11).encode() + b"\n"


__all__ = ["refuse_tokens", "token_sources", "write_tokens"]
