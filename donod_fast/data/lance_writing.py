"""Chosen rows of Lance datasets → a Lance dataset with the same schema and values."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from donod_fast.data.reading.arrow_values import conformed
from donod_fast.data.reading.lance_datasets import LanceRows, is_lance, lance_package
from donod_fast.data.reading.source import Source
from donod_fast.errors import InputError, StoreError
from donod_fast.system.files import storage_error
from donod_fast.system.places import LocalPlace


def lance_sources(sources: Sequence[Source]) -> list[LanceRows]:
    """The sources, if every one is a Lance dataset; else none."""
    found = [source for source in sources if isinstance(source, LanceRows)]
    return found if len(found) == len(sources) else []


def refuse_lance(out: Path, sources: Sequence[Source]) -> None:
    """Refuse to write rows of other inputs as a Lance dataset. Raises InputError."""
    if not lance_sources(sources):
        raise InputError(
            f"{out}: only rows of Lance datasets go into one unchanged; end the name in .jsonl, .json or .parquet"
        )


def write_lance(sources: Sequence[LanceRows], batches: Iterable[pa.RecordBatch], out: Path, overwrite: bool) -> int:
    """Write rows as a new Lance dataset, which is complete or absent, and return their number.

    Args:
        sources: the datasets that the rows are from, which have one schema.
        batches: the rows.
        out: the folder.
        overwrite: replace a Lance dataset that is there, with all its versions.

    Raises:
        StoreError: something is there and may not be replaced, or it cannot be written.
        CorpusError: a source cannot be read.
    """
    refuse_existing_lance(out, overwrite)
    schema = sources[0].written_schema()
    partial = out.parent / f".{out.name}.{os.getpid()}.tmp"
    rows = 0

    def counted() -> Iterable[pa.RecordBatch]:
        nonlocal rows
        for batch in batches:
            rows += batch.num_rows
            yield from conformed(batch, schema).combine_chunks().to_batches()

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        reader = pa.RecordBatchReader.from_batches(schema, counted())
        # Lance closes the reader, and with it the batches, when it fails
        lance_package().write_dataset(
            reader, str(partial), mode="create", data_storage_version=sources[0].storage_version()
        )
        refuse_existing_lance(out, overwrite)  # it may have appeared meanwhile
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        raise storage_error(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return rows


def refuse_existing_lance(out: Path, overwrite: bool) -> None:
    """Refuse to write a dataset where something is. Raises StoreError."""
    if not out.exists():
        return
    if not is_lance(LocalPlace(out)):
        raise StoreError(f"{out} exists and is not a Lance dataset; give another name")
    if not overwrite:
        raise StoreError(f"{out} exists already; give another name, or add --overwrite")


__all__ = ["lance_sources", "refuse_existing_lance", "refuse_lance", "write_lance"]
