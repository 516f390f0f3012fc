"""A file as LLaMA-Factory 0.9.5 loads it: by ``datasets`` 4.0 or earlier, which it pins.

Those releases read JSON Lines by pyarrow in pieces of 10 MiB and give each piece the columns of the first, and JSON
arrays by pandas. Texts that all look like dates become dates. Later releases of ``datasets`` load more, which proves
nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from donod_fast.errors import InputError

SUFFIXES = (".jsonl", ".json", ".parquet")
"""Ends of the names of files that are loaded with every text unchanged, as far as the rows allow."""

PIECE = 10 << 20
"""Bytes of JSON Lines that are read at a time."""

_ROWS = 1000


def loaded_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, of a kind in :data:`SUFFIXES`.

    Raises:
        InputError: it cannot be loaded; names the reason.
    """
    pieces = {".jsonl": _lines, ".json": _array, ".parquet": _table}[file.suffix](file)
    try:
        for piece in pieces:
            for batch in piece.to_batches(_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file.name}: LLaMA-Factory cannot load it: {reason[:300]}; write a .parquet file") from error


def _lines(file: Path) -> Iterator[pa.Table]:
    first: pa.Schema | None = None
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            piece += stream.readline()
            table = pyarrow.json.read_json(
                io.BytesIO(piece), read_options=pyarrow.json.ReadOptions(block_size=len(piece) + 1)
            )
            if first is None:
                first = table.schema
            elif sorted(table.schema.names) != sorted(first.names):
                other = sorted(set(table.schema.names) ^ set(first.names))[0]
                raise ValueError(f"the column {other!r} is in some pieces of {PIECE >> 20} MiB only")
            yield table.select(first.names).cast(first)


def _array(file: Path) -> Iterator[pa.Table]:
    import pandas

    with file.open(encoding="utf-8") as stream:
        frame = pandas.read_json(stream, dtype_backend="pyarrow")
    yield pa.Table.from_pandas(frame, preserve_index=False)


def _table(file: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(file) as stored:
        for batch in stored.iter_batches(_ROWS):
            yield pa.Table.from_batches([batch])


__all__ = ["PIECE", "SUFFIXES", "loaded_rows"]
