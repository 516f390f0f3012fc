"""The same five rows in a file of every kind, for the tests of reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from donod_fast.data.reading import Corpus

ROWS = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(5)]


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def csv_bytes(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    lines = [delimiter.join(rows[0])] + [delimiter.join(row.values()) for row in rows]
    return "\n".join(lines).encode()


def parquet_bytes(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return bytes(sink.getvalue().to_pybytes())


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


def written(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def data_of(corpus: Corpus) -> list[Mapping[str, Any] | None]:
    return [record.data for record in corpus.records()]


FILES = {
    "rows.jsonl": json_lines(ROWS),
    "rows.ndjson": json_lines(ROWS),
    "lines.json": json_lines(ROWS),
    "array.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=2).encode(),
    "wrapped.json": json.dumps({"version": 2, "data": ROWS}, indent=1).encode(),
    "rows.csv": csv_bytes(ROWS, ","),
    "rows.tsv": csv_bytes(ROWS, "\t"),
    "rows.parquet": parquet_bytes(ROWS, row_group_size=2),
}
