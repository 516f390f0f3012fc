"""Files of every kind that can be read, and injuries of their bytes.

A new kind is one entry of :data:`KINDS`. The kind's own library writes the file where there is one.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from reading_files import ROWS, csv_bytes, json_lines, parquet_bytes, zstd

Write = Callable[[Path], None]
"""Writes a whole file or folder of this name."""


def _bytes(content: bytes) -> Write:
    return lambda path: path.write_bytes(content) and None  # type: ignore[func-returns-value]


def _arrow(make: Callable[[pa.BufferOutputStream, pa.Schema], Any]) -> Write:
    def write(path: Path) -> None:
        table, sink = pa.Table.from_pylist(ROWS), pa.BufferOutputStream()
        with make(sink, table.schema) as writer:
            for batch in table.to_batches(max_chunksize=2):
                writer.write_batch(batch)
        path.write_bytes(sink.getvalue().to_pybytes())

    return write


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for at, row in enumerate(ROWS):
            content = json.dumps(row).encode()
            member = tarfile.TarInfo(f"{at:03}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _lance(path: Path) -> None:
    importlib.import_module("lance").write_dataset(pa.Table.from_pylist(ROWS), str(path))


def _dataset(path: Path) -> None:
    importlib.import_module("datasets").Dataset.from_list(ROWS).save_to_disk(str(path))


def _memmap(path: Path) -> None:
    np.arange(256, dtype=np.uint16).tofile(path)


_TYPED = [{"messages": [{"role": "user", "content": f"{at}?"}], "score": at / 7, "tags": ["a"] * at} for at in range(6)]

KINDS: dict[str, Write] = {
    "rows.jsonl": _bytes(json_lines(ROWS)),
    "rows.json": _bytes(json.dumps(ROWS, indent=1).encode()),
    "wrapped.json": _bytes(json.dumps({"version": 2, "data": ROWS}).encode()),
    "rows.csv": _bytes(csv_bytes(ROWS, ",")),
    "rows.tsv": _bytes(csv_bytes(ROWS, "\t")),
    "rows.parquet": _bytes(parquet_bytes(ROWS, row_group_size=2)),
    "typed.parquet": _bytes(parquet_bytes(_TYPED, compression="zstd", row_group_size=3)),
    "plain.parquet": _bytes(parquet_bytes(_TYPED, compression="none", use_dictionary=False, data_page_version="2.0")),
    "rows.jsonl.gz": _bytes(gzip.compress(json_lines(ROWS))),
    "rows.json.gz": _bytes(gzip.compress(json.dumps(ROWS).encode())),
    "rows.csv.gz": _bytes(gzip.compress(csv_bytes(ROWS, ","))),
    "rows.jsonl.zst": _bytes(zstd(json_lines(ROWS))),
    "rows.json.zst": _bytes(zstd(json.dumps(ROWS).encode())),
    "saved": _dataset,
    "stream.arrow": _arrow(pa.ipc.new_stream),
    "file.arrow": _arrow(pa.ipc.new_file),
    "rows.tar": _tar,
    "rows.lance": _lance,
    "tokens.npy": _memmap,
}
"""Files by name. A kind that this release refuses even when it is whole is left out, and named."""

_MARKS = (
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\0",
    b"\0" * 64,
    b"\x1f\x8b",
    b"(\xb5/\xfd",
    b"PAR1",
    b"ARROW1\0\0",
)


def injured(content: bytes, draw: random.Random) -> bytes:
    """The bytes of a file with one to three injuries."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        size = len(content)
        at = draw.randint(0, size)
        other = draw.randint(0, size)
        low, high = min(at, other), max(at, other)
        match draw.randrange(11):
            case 0 | 1 | 2 if size:
                at = draw.randrange(size)
                content = content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
            case 3 if size:
                at = draw.randrange(size)
                content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
            case 4:
                content = content[:at]
            case 5:
                content = content[:low] + content[high:]
            case 6:
                content = content[:at] + content[low:high] + content[at:]
            case 7:
                middle = (low + high) // 2
                content = content[:low] + content[middle:high] + content[low:middle] + content[high:]
            case 8:
                content = content[: draw.choice((0, at))] + draw.choice(_MARKS) + content[draw.choice((0, at)) :]
            case 9:
                content = content[:at] + draw.randbytes(draw.randint(1, 40)) + content[at:]
            case 10 if draw.random() < 0.3:
                content = gzip.compress(draw.randbytes(draw.randint(0, 60)) + content[:at])
            case _:
                text = content.decode("latin-1")
                content = text.encode(draw.choice(("utf-16", "utf-32", "utf-7", "cp500")), "replace")
        content = content[: 1 << 20]
    return content


def injure(path: Path, draw: random.Random) -> None:
    """Injure a file, or one file of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    file = draw.choice(files)
    file.write_bytes(injured(file.read_bytes(), draw))


__all__ = ["KINDS", "injure", "injured"]
