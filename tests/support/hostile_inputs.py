"""Hostile inputs, each with what must come of it: small to write (sparse or compressed), expensive to read carelessly."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GOOD = [{"question": f"Count {n} of it", "answer": f"it is {n}"} for n in range(6)]
"""Rows that stand around the hostile one, and must be scored as if it were not there."""

GIB = 1 << 30


@dataclass(frozen=True)
class Hostile:
    """A hostile corpus.

    Attributes:
        kind: kind of attack, for the table.
        name: name of the file.
        write: writes it; the argument is its path.
        rows: number of good rows that must be scored; None if the file must be refused as a whole.
        told: parts of the message, or of the row's detail.
    """

    kind: str
    name: str
    write: Callable[[Path], None]
    rows: int | None = len(GOOD)
    told: tuple[str, ...] = ()


def line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def among(middle: bytes) -> bytes:
    """A hostile line among the good ones."""
    return b"".join(map(line, GOOD[:3])) + middle + b"".join(map(line, GOOD[3:]))


def repeated(write: Callable[[bytes], object], block: bytes, times: int) -> None:
    for _ in range(times):
        write(block)


def gzip_of(path: Path, *pieces: tuple[bytes, int]) -> None:
    """Blocks of plain bytes, each repeated, as one gzip stream that is made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for block, times in pieces:
            for _ in range(times):
                file.write(packer.compress(block))
        file.write(packer.flush())


def zstd_of(path: Path, *pieces: tuple[bytes, int]) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        for block, times in pieces:
            repeated(stream.write, block, times)


def sparse(path: Path, before: bytes, hole: int, after: bytes) -> None:
    with path.open("wb") as file:
        file.write(before)
        file.seek(hole, 1)
        file.write(after)
        file.truncate()


MIB = b" " * (1 << 20)
SPACES = b"\n" * (1 << 20)
LETTERS = b"a" * (1 << 20)


def deep(depth: int) -> bytes:
    return b'{"question": "q", "answer": ' + b"[" * depth + b"]" * depth + b"}\n"


def _csv(rows: list[dict[str, Any]], middle: bytes = b"") -> bytes:
    lines = [f"{row['question']},{row['answer']}\n".encode() for row in rows]
    return b"question,answer\n" + b"".join(lines[:3]) + middle + b"".join(lines[3:])


def _many_keys(path: Path) -> None:
    row = {f"k{n}": n for n in range(10**6)}
    path.write_bytes(among(line({**GOOD[0], **row})))


def _big_array(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"[" + b",".join(json.dumps(row).encode() for row in GOOD[:3]) + b',{"question":"')
        repeated(file.write, LETTERS, 300)
        file.write(b'","answer":"b"},' + b",".join(json.dumps(row).encode() for row in GOOD[3:]) + b"]")


def _parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)


def _dictionary_bomb(path: Path) -> None:
    big = "a" * (64 << 20)
    table = pa.table({
        "question": pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array([big])),
        "answer": pa.array(["b"] * 2000),
    })
    pq.write_table(table, path, compression="zstd", store_schema=False)


def _page_bomb(path: Path) -> None:
    table = pa.table({"question": pa.array(["a" * (512 << 20), "b"]), "answer": pa.array(["b", "c"])})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def _row_bomb(path: Path) -> None:
    writer = pq.ParquetWriter(path, pa.schema([("question", pa.string()), ("answer", pa.string())]), compression="zstd")
    block = pa.table({"question": pa.nulls(10**7, pa.string()), "answer": pa.nulls(10**7, pa.string())})
    with writer:
        for _ in range(12):
            writer.write_table(block, row_group_size=10**7)


def _deep_parquet(path: Path) -> None:
    kind: Any = pa.int32()
    for _ in range(600):
        kind = pa.struct([("a", kind)])
    schema = pa.schema([("question", pa.string()), ("answer", pa.string()), ("x", kind)])
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(pa.Table.from_pylist(GOOD, schema=schema))


HUGE_LINE = b'{"question": "'
HOSTILE = (
    Hostile("gzip bomb", "bomb.jsonl.gz", lambda p: gzip_of(p, (line(GOOD[0]), 1), (LETTERS, 20 * 1024)), None, ("bomb.jsonl.gz", "--max-expansion")),
    Hostile("gzip bomb", "blank.jsonl.gz", lambda p: gzip_of(p, (line(GOOD[0]), 1), (SPACES, 2 * 1024)), None, ("blank.jsonl.gz", "--max-expansion")),
    Hostile("gzip bomb", "rows.csv.gz", lambda p: gzip_of(p, (b"question,answer\n", 1), (SPACES, 4 * 1024)), None, ("rows.csv.gz", "--max-expansion")),
    Hostile("gzip bomb", "doc.json.gz", lambda p: gzip_of(p, (b'[{"question":"', 1), (LETTERS, 4 * 1024), (b'"}]', 1)), None, ("doc.json.gz",)),
    Hostile("gzip bomb", "table.parquet.gz", lambda p: gzip_of(p, (b"PAR1", 1), (b"\0" * (1 << 20), 20 * 1024)), None, ("table.parquet.gz",)),
    Hostile("zstd bomb", "bomb.jsonl.zst", lambda p: zstd_of(p, (line(GOOD[0]), 1), (LETTERS, 40 * 1024)), None, ("bomb.jsonl.zst", "--max-expansion")),
    Hostile("nested compression", "twice.jsonl.gz", lambda p: p.write_bytes(gzip.compress(gzip.compress(among(b""))) and gzip.compress(gzip.compress(among(b"")))) and None, None, ("twice.jsonl.gz",)),
    Hostile("other compression", "a.jsonl.bz2", lambda p: p.write_bytes(bz2.compress(among(b""))) and None, None, ("a.jsonl.bz2", "unknown kind")),
    Hostile("other compression", "a.jsonl.xz", lambda p: p.write_bytes(lzma.compress(among(b""))) and None, None, ("a.jsonl.xz", "unknown kind")),
    Hostile("other compression", "a.zip", lambda p: zipfile.ZipFile(p, "w").writestr("a.jsonl", among(b"")), None, ("a.zip", "unknown kind")),
    Hostile("truncated stream", "cut.jsonl.gz", lambda p: p.write_bytes(gzip.compress(among(b""))[:-12]) and None, None, ("cut.jsonl.gz",)),
    Hostile("concatenated members", "two.jsonl.gz", lambda p: p.write_bytes(gzip.compress(among(b"")[:150]) + gzip.compress(among(b"")[150:])) and None),
    Hostile("huge line", "line.jsonl", lambda p: sparse(p, b"".join(map(line, GOOD[:3])) + HUGE_LINE, 3 * GIB, b'"}\n' + b"".join(map(line, GOOD[3:]))), 6, ("--max-record-size",)),
    Hostile("huge line", "nul.jsonl", lambda p: sparse(p, b"".join(map(line, GOOD)), 3 * GIB, b"\n"), 6, ("--max-record-size",)),
    Hostile("huge line", "line.csv", lambda p: sparse(p, _csv(GOOD[:3]) + b'"', GIB, b'",x\n' + _csv(GOOD[3:])[16:]), 6, ("--max-record-size",)),
    Hostile("huge line", "line.json", lambda p: sparse(p, b"", 2 * GIB, b"\n"), None, ("line.json",)),
    Hostile("row of 64 MB", "row.jsonl", lambda p: p.write_bytes(among(line({**GOOD[0], "question": "a b " * (16 << 20)}))) and None, 6, ("--max-record-size",)),
    Hostile("row of 30 MB", "row30.jsonl", lambda p: p.write_bytes(among(line({**GOOD[0], "question": "a b " * (7 << 20)}))) and None, 6),
    Hostile("row of many turns", "turns.jsonl", lambda p: p.write_bytes(among(line({"messages": [{"role": ("user", "assistant")[n % 2], "content": "a"} for n in range(200_000)]}))) and None, 6),
    Hostile("huge element", "array.json", _big_array, 6, ("--max-record-size",)),
    Hostile("unclosed quote", "quote.csv", lambda p: p.write_bytes(_csv(GOOD, b'"open,x\n' + b"line of text, more\n" * (16 << 20))) and None, 3, ("--max-record-size",)),
    Hostile("blank lines", "blank.jsonl", lambda p: _blank(p, 1), 6),
    Hostile("blank lines", "blank.csv", lambda p: _blank_csv(p, 1), 6),
    Hostile("many keys", "keys.jsonl", _many_keys, 7),
    Hostile("odd JSON", "deep.jsonl", lambda p: p.write_bytes(among(deep(10**6))) and None, 6),
    Hostile("odd JSON", "odd.jsonl", lambda p: p.write_bytes(among(b"".join(ODD_LINES))) and None, 6),
    Hostile("odd JSON", "deep.json", lambda p: p.write_bytes(b"[" + deep(10**6) + b"]") and None, None, ("deep.json",)),
    Hostile("parquet page", "page.parquet", _page_bomb, None, ("page.parquet",)),
    Hostile("parquet dictionary", "dictionary.parquet", _dictionary_bomb, None, ("dictionary.parquet",)),
    Hostile("parquet rows", "rows.parquet", _row_bomb, None, ("rows.parquet",)),
    Hostile("parquet depth", "deep.parquet", _deep_parquet, None, ("deep.parquet",)),
    Hostile("wide CSV", "wide.csv", lambda p: p.write_bytes((",".join(f"c{n}" for n in range(300_000)) + "\n" + "1," * 10 + "\n").encode()) and None, None),
)  # fmt: skip

ODD_LINES = (
    b'{"question": "a", "answer": ' + b"9" * 100_000 + b"}\n",
    b'{"question": "a", "answer": 1e999}\n',
    b'{"question": "a", "answer": "\\ud800"}\n',
    b'{"question": "\\udfff", "answer": ["\\ud800"]}\n',
    b'{"question": {"a": NaN}, "answer": -Infinity}\n',
    b'{"question": "a", "answer": "\\u0000"' + b',"a":1' * 1000 + b"}\n",
)


def _blank(path: Path, gib: int) -> None:
    with path.open("wb") as file:
        file.write(b"".join(map(line, GOOD[:3])))
        repeated(file.write, SPACES, gib * 1024)
        file.write(b"".join(map(line, GOOD[3:])))


def _blank_csv(path: Path, gib: int) -> None:
    with path.open("wb") as file:
        file.write(_csv(GOOD[:3]))
        repeated(file.write, b"\r\n" * (1 << 19), gib * 512)
        file.write(_csv(GOOD[3:])[16:])


def odd_values(draw: random.Random) -> Iterator[Any]:
    """Values that a number or a text of a config is replaced by."""
    yield from (0, -1, 10**9, 10**12, 10**30, -(10**9), 1.5, float("nan"), float("inf"), "a", "1", [], {}, [1], True)
    yield from ({"a": {"b": 1}}, [[[]]], "x" * draw.randint(1, 10**5))
