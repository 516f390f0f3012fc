"""Join the scores of a folder to the rows of its corpus, in input order and in constant memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from donod_fast.data.json_values import to_json
from donod_fast.data.reading import Corpus
from donod_fast.data.reading.csv_files import DELIMITERS
from donod_fast.data.record_files import csv_line_end
from donod_fast.data.source_tables import ArrowSource, BatchCheck, chosen_batches, common_schema
from donod_fast.data.types import Record
from donod_fast.errors import InputError, StoreError
from donod_fast.scores.folder import ScoresFolder

PREFIX = "donod."
"""Prefix of the names of scores among the columns of a record."""

_FEATURES = b"huggingface"


def score_tables(folder: ScoresFolder) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield (first row, row after the last, scores) of every part. NaN becomes null, names get ``PREFIX``.

    Raises:
        StoreError: a part is gone or damaged.
    """
    known = {column.name for entry in folder.signals for column in entry.columns}
    left_out = known - {column.name for column in folder.signal_columns()}
    for part in range(folder.parts):
        table = folder.read_part(part)
        if table is None:
            raise StoreError(f"{folder.storage.url(folder.part_name(part))} is gone; run `donod-fast score` again")
        names = [name for name in table.column_names if not name.startswith("record.") and name not in left_out]
        columns = [_known(table.column(name)) for name in names]
        yield *folder.part_range(part), pa.table(columns, names=[PREFIX + name for name in names])


def _known(column: Any) -> Any:
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def joined_records(folder: ScoresFolder, corpus: Corpus) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Every record with its scores.

    Raises:
        InputError: a column of a record has the name of a score.
        CorpusError: an input cannot be read, or has changed since it was scored.
        StoreError: a part is gone or damaged.
    """
    for start, stop, table in score_tables(folder):
        yield from zip(corpus.records(start, stop), table.to_pylist(), strict=True)


def with_columns(record: Record, scores: Mapping[str, Any]) -> Record:
    """The record with its scores as further columns, and without a text of its own.

    Raises:
        InputError: a column of the record has the name of a score.
    """
    return replace(record, raw=None, data={**(record.data or {}), **scores})


def with_members(record: Record, scores: Mapping[str, Any]) -> bytes:
    """The record as a line of JSON with its scores as the last members; its own text, if it has one, is unchanged."""
    own = record.json_text
    if own is None or record.data is None:
        return to_json({**(record.data or {}), **scores})
    body = own.rstrip()
    comma = b"," if record.data and scores else b""
    return body[:-1] + comma + to_json(dict(scores))[1:] + own[len(body) :]


def refuse_score_names(record: Record) -> None:
    """Refuse a record with a column that has the name of a score.

    Raises:
        InputError: names file, place and column.
    """
    for name in record.data or ():
        if isinstance(name, str) and name.startswith(PREFIX):
            raise InputError(
                f"{record.file}, {record.place}: column {name!r} has the name of a score; use --records json"
            )


def joined_schema(sources: Sequence[ArrowSource], scores: pa.Schema) -> pa.Schema:
    """The schema of tables joined to scores: the columns of the tables exactly, then those of the scores.

    Raises:
        InputError: the schemas of two tables differ, or a column has the name of a score.
        CorpusError: a table cannot be read, or has changed.
    """
    schema = common_schema(sources)
    for name in schema.names:
        if name.startswith(PREFIX):
            raise InputError(f"{sources[0].name}: column {name!r} has the name of a score; use --records json")
    metadata = dict(schema.metadata or {})
    if _FEATURES in metadata:  # datasets reads the columns from here, and refuses others
        metadata[_FEATURES] = _with_features(metadata[_FEATURES], scores)
    return pa.schema([*schema, *scores], metadata=metadata or None)


def _with_features(text: bytes, scores: pa.Schema) -> bytes:
    import datasets

    try:
        described = json.loads(text)
        features = described["info"]["features"]
        features.update(datasets.Features.from_arrow_schema(scores).to_dict())
    except (ValueError, KeyError, TypeError, AttributeError):
        return text
    return json.dumps(described).encode()


def joined_batches(
    sources: Sequence[ArrowSource],
    rows: int,
    tables: Iterator[tuple[int, int, pa.Table]],
    check: BatchCheck | None = None,
) -> Iterator[pa.RecordBatch]:
    """Every row of tables with its scores, as batches with the columns of both.

    Args:
        sources: the inputs of the corpus.
        rows: how many rows they have.
        tables: the scores, from :func:`score_tables`.
        check: called with each batch of the tables.
    """
    scores, used = next(tables)[2], 0
    for batch in chosen_batches(sources, range(rows), rows - 1, check):
        pieces, missing = [], batch.num_rows
        while missing:
            if used == scores.num_rows:
                scores, used = next(tables)[2], 0
                continue
            pieces.append(scores.slice(used, missing))
            used += pieces[-1].num_rows
            missing -= pieces[-1].num_rows
        beside = pa.concat_tables(pieces).combine_chunks()
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name, column in zip(beside.column_names, beside.columns, strict=True):
            columns[name] = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
        yield pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def csv_header(header: bytes, kind: str, names: Sequence[str]) -> bytes:
    """The header row of a CSV or TSV file with the names of scores after its own."""
    return _plain(header) + _fields(kind, names) + csv_line_end(header)


def csv_row(record: Record, header: bytes, columns: int, scores: Mapping[str, Any]) -> bytes:
    """A row of a CSV or TSV file, its bytes unchanged, with scores after its own fields.

    Args:
        record: the row; if it cannot be parsed, its own fields are left empty.
        header: the header row of the output, which has the line end.
        columns: number of the row's own fields.
        scores: the scores by name.
    """
    own = DELIMITERS[record.form].encode() * (columns - 1)
    if record.data is not None and record.raw is not None:
        own = _plain(record.raw)
    return own + _fields(record.form, list(scores.values())) + csv_line_end(header)


def _plain(row: bytes) -> bytes:
    return row.removesuffix(b"\n").removesuffix(b"\r")


def _fields(kind: str, values: Sequence[Any]) -> bytes:
    text = io.StringIO()
    plain = ["" if value is None else str(value).lower() if isinstance(value, bool) else value for value in values]
    csv.writer(text, delimiter=DELIMITERS[kind], lineterminator="").writerow(["", *plain])
    return text.getvalue().encode("utf-8")


__all__ = [
    "PREFIX",
    "csv_header",
    "csv_row",
    "joined_batches",
    "joined_records",
    "joined_schema",
    "refuse_score_names",
    "score_tables",
    "with_columns",
    "with_members",
]
