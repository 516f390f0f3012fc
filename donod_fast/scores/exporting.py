"""Export the records of a scores folder with their scores: a file of one of several kinds, or a dataset folder.

What a subset keeps (:mod:`donod_fast.selection.subset`), an export keeps too: the text of JSON and CSV records, the
schema and the values of tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from donod_fast.data.dataset_bars import hidden_bars
from donod_fast.data.json_values import to_json
from donod_fast.data.reading import Corpus
from donod_fast.data.reading.csv_files import header_columns
from donod_fast.data.reading.source import Source
from donod_fast.data.record_files import (
    CSV,
    JSON,
    JSON_LINES,
    PARQUET,
    TSV,
    compressing,
    refuse_inputs,
    write_csv,
    write_json_array,
)
from donod_fast.data.record_tables import write_parquet
from donod_fast.data.source_tables import arrow_sources, batch_check, common_schema, write_parquet_batches
from donod_fast.data.targets import common_header, has_common_header, is_table
from donod_fast.data.types import Record
from donod_fast.errors import InputError, StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.joining import (
    csv_header,
    csv_row,
    joined_batches,
    joined_records,
    joined_schema,
    refuse_score_names,
    score_tables,
    with_columns,
    with_members,
)
from donod_fast.system.files import atomic_writer, storage_error
from donod_fast.system.places import refuse_url
from donod_fast.system.scratch import scratch_folder

RECORD = "record"
"""The column that holds a whole record as JSON."""

DATASET_INFO = "dataset_info.json"
"""File that ``datasets`` writes into the folder of a saved dataset."""

_FILES = (PARQUET, CSV, *JSON_LINES, JSON)


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        rows: number of rows.
        json_columns: columns of a Parquet file or dataset that are JSON text, because no Arrow type holds their values
            exactly.
    """

    rows: int
    json_columns: tuple[str, ...] = ()


def export(
    folder: ScoresFolder, corpus: Corpus, out: Path, *, records: str = "columns", overwrite: bool = False
) -> int:
    """Write every row with its record, and return how many there are; see :func:`export_file`."""
    return export_file(folder, corpus, out, records=records, overwrite=overwrite).rows


def export_file(
    folder: ScoresFolder, corpus: Corpus, out: Path, *, records: str = "columns", overwrite: bool = False
) -> Export:
    """Write every row of a finished folder with its record, in input order.

    The scores are the columns ``donod.row``, ``donod.status``, ``donod.don`` and so on; they are null where the row
    has none. They come after the record's own columns, which stay as they are: the text of a record from JSON Lines or
    JSON in a JSON file, the fields of a row of CSV in CSV (of TSV in TSV), the columns of tables in Parquet. Memory
    stays flat: the corpus is streamed once, or twice to find the types of its columns.

    Args:
        folder: the scores.
        corpus: the scored records.
        out: a name that ends in ``.parquet``, ``.csv``, ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst``, ``.json``, or (if
            all inputs are TSV files) ``.tsv``; or, without a suffix, the folder of a dataset
            (``datasets.load_from_disk`` reads it). In CSV, lists and objects are JSON text.
        records: ``"columns"`` for the record's own columns, ``"json"`` for one column ``record`` of JSON text.
        overwrite: replace an existing target.

    Raises:
        InputError: a column has the name of a score, ``out`` has a suffix of a kind of file that cannot hold the
            records, or a value from Python that the format cannot hold.
        CorpusError: an input cannot be read, or has changed since it was scored.
        StoreError: the folder is unfinished, or the target exists or cannot be written, or it is a folder that holds
            something other than a saved dataset.
    """
    if records not in ("columns", "json"):
        raise InputError(f"records must be columns or json, got {records!r}")
    refuse_export_name(out, corpus.sources, records)
    refuse_inputs(folder.manifest["input"].get("inputs") or (), out)
    folder.part_files()  # all are there
    if out.exists() and not overwrite:
        raise StoreError(f"{out} exists already; give another name, or add --overwrite")
    join = _Join(folder, corpus, as_json=records == "json")
    if not is_file_name(out):
        refuse_other_folder(out)
        return Export(folder.rows, save_dataset(join.write_table, out))
    if out.is_dir():
        raise StoreError(f"{out} is a folder; give the name of a file")
    name = out.name.lower()
    json_columns: tuple[str, ...] = ()
    with atomic_writer(out) as file:
        if name.endswith(PARQUET):
            json_columns = join.write_table(file)
        elif name.endswith((CSV, TSV)):
            join.write_csv(file, "tsv" if name.endswith(TSV) else "csv")
        elif name.endswith(JSON):
            write_json_array(join.json_texts(), file)
        else:
            with compressing(file, name) as stream:
                for text in join.json_texts():
                    stream.write(text + b"\n")
    return Export(folder.rows, json_columns)


def refuse_export_name(out: Path, sources: Sequence[Source] = (), records: str = "columns") -> None:
    """Refuse the name of a file of a kind that is unknown or cannot hold the records of these inputs.

    Raises:
        InputError: names the kinds that can.
        CorpusError: an input cannot be read, or has changed.
    """
    refuse_url(out, "an export")
    tsv = (TSV,) if is_table(sources, "tsv") and records == "columns" else ()
    if re.fullmatch(r"\.[A-Za-z]\w*", out.suffix) and not out.name.lower().endswith((*_FILES, *tsv)):
        raise InputError(
            f"{out}: cannot write {out.suffix} files of these records; end the name in {', '.join((*_FILES, *tsv))}, "
            "or give a name without a suffix for a folder that datasets.load_from_disk reads"
        )
    arrow = arrow_sources(sources)
    if arrow is not None and records == "columns" and (out.name.lower().endswith(PARQUET) or not is_file_name(out)):
        schema = common_schema(arrow)
        if not is_file_name(out):
            _refuse_other_types(out, schema)


def _refuse_other_types(out: Path, schema: pa.Schema) -> None:
    """Refuse columns that ``datasets`` has no feature for."""
    import datasets

    for field in schema:
        try:
            datasets.Features.from_arrow_schema(pa.schema([field]))
        except (ValueError, NotImplementedError) as error:
            raise InputError(
                f"{out}: a folder of datasets cannot hold the column {field.name!r} ({field.type}); "
                f"end the name in {PARQUET}"
            ) from error


def is_file_name(out: Path) -> bool:
    """Whether a target is a file of a known kind; otherwise it is the folder of a saved dataset."""
    return out.name.lower().endswith((*_FILES, TSV))


class _Join:
    """Writes the records of a corpus with their scores in each kind of file."""

    def __init__(self, folder: ScoresFolder, corpus: Corpus, *, as_json: bool) -> None:
        self._folder = folder
        self._corpus = corpus
        self._as_json = as_json

    def json_texts(self) -> Iterator[bytes]:
        """Each record with its scores as JSON on one line."""
        for record, scores in joined_records(self._folder, self._corpus):
            yield with_members(self._checked(record), scores)

    def write_table(self, file: BinaryIO) -> tuple[str, ...]:
        """Write Parquet; return the names of columns of JSON text."""
        arrow = None if self._as_json else arrow_sources(self._corpus.sources)
        if arrow is None:
            return write_parquet(self._records, file)
        tables = score_tables(self._folder)
        first = next(tables)
        check = batch_check(self._corpus)
        batches = joined_batches(arrow, self._folder.rows, chain([first], tables), check)
        write_parquet_batches(joined_schema(arrow, first[2].schema), batches, file)
        return ()

    def write_csv(self, file: BinaryIO, kind: str) -> None:
        """Write CSV (``kind`` "csv") or TSV; rows of files of the same kind keep their bytes."""
        sources = self._corpus.sources
        if self._as_json or not is_table(sources, kind) or not has_common_header(sources):
            write_csv(self._records, file)
            return
        own = common_header(sources)
        columns: int | None = None
        for record, scores in joined_records(self._folder, self._corpus):
            if columns is None:
                columns = len(header_columns(own, kind))
                file.write(csv_header(own, kind, list(scores)))
            file.write(csv_row(self._checked(record), own, columns, scores))

    def _records(self) -> Iterator[Record]:
        for record, scores in joined_records(self._folder, self._corpus):
            yield with_columns(self._checked(record), scores)

    def _checked(self, record: Record) -> Record:
        if self._as_json:
            return replace(record, raw=None, data=_as_json(record))
        refuse_score_names(record)
        return record


def refuse_other_folder(out: Path) -> None:
    """Refuse to replace what is not a saved dataset: the whole folder would be deleted. Raises StoreError."""
    if out.exists() and not (out / DATASET_INFO).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise StoreError(f"{out} is not a saved dataset, and --overwrite would delete it; give another name")


def _as_json(record: Record) -> dict[str, Any]:
    own = record.json_text
    if own is None and record.data is not None:
        own = to_json(dict(record.data))
    elif own is None:
        own = record.raw or b""
    return {RECORD: own.decode("utf-8", errors="replace")} if own else {}


def save_dataset(write_table: Callable[[BinaryIO], tuple[str, ...]], out: Path) -> tuple[str, ...]:
    """Make a saved dataset of the Parquet file that ``write_table`` writes, and return what it returns.

    The folder is complete or absent: it is made beside its place and renamed. One that it replaces is moved away first.

    Raises:
        StoreError: it cannot be written.
    """
    import datasets

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(out.parent, ".donod-fast-export-") as place:
            table, saved = place / "rows.parquet", place / "saved"
            with table.open("wb") as file:
                json_columns = write_table(file)
            with hidden_bars():
                dataset: Any = datasets.Dataset.from_parquet(str(table), cache_dir=str(place / "cache"))
                dataset.save_to_disk(str(saved))
            if out.is_dir():
                out.rename(place / "replaced")  # whole or absent: removed in its place, a kill would leave half of it
            saved.rename(out)
        return json_columns
    except OSError as error:
        raise storage_error(out, error) from error


__all__ = [
    "Export",
    "export",
    "export_file",
    "is_file_name",
    "refuse_export_name",
    "refuse_other_folder",
    "save_dataset",
]
