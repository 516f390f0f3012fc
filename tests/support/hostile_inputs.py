"""Hostile inputs, each with what must come of it: sparse or compressed, so that only careless reading is expensive."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable
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
    """Blocks of plain bytes, each repeated, as one gzip stream; each is compressed once, and the check sum is wrong."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for block, times in pieces:
            file.write(packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH))
            if times > 1:  # what follows a full flush stands for itself
                repeated(file.write, packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH), times - 1)
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


def _dictionary_bomb(path: Path) -> None:
    big = "a" * (64 << 20)
    table = pa.table(
        {
            "question": pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array([big])),
            "answer": pa.array(["b"] * 2000),
        }
    )
    pq.write_table(table, path, compression="zstd", store_schema=False)


def _page_bomb(path: Path) -> None:
    table = pa.table({"question": pa.array(["a" * (512 << 20), "b"]), "answer": pa.array(["b", "c"])})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def _row_bomb(path: Path) -> None:
    writer = pq.ParquetWriter(path, pa.schema([("question", pa.string()), ("answer", pa.string())]), compression="zstd")
    block = pa.table({"question": pa.nulls(10**7, pa.string()), "answer": pa.nulls(10**7, pa.string())})
    with writer:
        for _ in range(9):
            writer.write_table(block, row_group_size=10**7)


def footer_only(path: Path, depth: int, rows: int) -> None:
    """A Parquet file without data, whose footer tells of a type of this depth and of these rows."""

    def number(value: int) -> bytes:
        return _varint(value << 1)

    def element(name: bytes, children: int | None) -> bytes:
        end = b"\x00" if children is None else b"\x15" + number(children) + b"\x00"
        kind = b"\x15\x02\x25\x02" if children is None else b"\x35\x02"
        return kind + b"\x18" + bytes([len(name)]) + name + end

    elements = [element(b"s", 1), *[element(b"a", 1)] * depth, element(b"x", None)]
    footer = (
        b"\x15\x02\x19\xfc" + _varint(len(elements)) + b"".join(elements) + b"\x16" + number(rows) + b"\x19\x0c\x00"
    )
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        value, out = value >> 7, out + bytes([value & 127 | 128])
    return out + bytes([value])


def _content(make: Callable[[], bytes]) -> Callable[[Path], None]:
    """Writes bytes that are made when they are needed."""

    def write(path: Path) -> None:
        path.write_bytes(make())

    return write


def _gzip(*pieces: tuple[bytes, int]) -> Callable[[Path], None]:
    return lambda path: gzip_of(path, *pieces)


def _sparse(before: bytes, hole: int, after: bytes) -> Callable[[Path], None]:
    return lambda path: sparse(path, before, hole, after)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.jsonl", among(b""))


def _turns() -> bytes:
    turns = [{"role": ("user", "assistant")[n % 2], "content": "a"} for n in range(200_000)]
    return among(line({"messages": turns}))


def _row(words: int) -> bytes:
    return among(line({**GOOD[0], "question": "a b " * words}))


def _unclosed() -> bytes:
    return _csv(GOOD, b'"x\n' + (LETTERS + b"\n") * 40)


def _wide() -> bytes:
    return (",".join(f"c{n}" for n in range(300_000)) + "\n" + "1," * 10 + "\n").encode()


HEAD, TAIL = b"".join(map(line, GOOD[:3])), b"".join(map(line, GOOD[3:]))
ONE = (line(GOOD[0]), 1)
DOCUMENT = ((b'[{"question":"', 1), (LETTERS, 4 * 1024), (b'"}]', 1))
RECORD, EXPANSION = "--max-record-size", "--max-expansion"
UNKNOWN = "unknown kind"
HOSTILE = (
    Hostile("gzip bomb", "bomb.jsonl.gz", _gzip(ONE, (LETTERS, 20 * 1024)), None, (EXPANSION,)),
    Hostile("gzip bomb", "blank.jsonl.gz", _gzip(ONE, (SPACES, 2 * 1024)), None, (EXPANSION,)),
    Hostile("gzip bomb", "rows.csv.gz", _gzip((b"question,answer\n", 1), (SPACES, 4096)), None, (EXPANSION,)),
    Hostile("gzip bomb", "doc.json.gz", _gzip(*DOCUMENT), None),
    Hostile("gzip bomb", "table.parquet.gz", _gzip((b"PAR1", 1), (bytes(1 << 20), 20 * 1024)), None),
    Hostile("zstd bomb", "bomb.jsonl.zst", lambda path: zstd_of(path, ONE, (LETTERS, 8 * 1024)), None, (EXPANSION,)),
    Hostile("nested compression", "twice.jsonl.gz", _content(lambda: gzip.compress(gzip.compress(among(b"")))), None),
    Hostile("other compression", "a.jsonl.bz2", _content(lambda: bz2.compress(among(b""))), None, (UNKNOWN,)),
    Hostile("other compression", "a.jsonl.xz", _content(lambda: lzma.compress(among(b""))), None, (UNKNOWN,)),
    Hostile("other compression", "a.zip", _zip, None, (UNKNOWN,)),
    Hostile("truncated stream", "cut.jsonl.gz", _content(lambda: gzip.compress(among(b""))[:-12]), None),
    Hostile("joined streams", "two.jsonl.gz", _content(lambda: gzip.compress(HEAD) + gzip.compress(TAIL))),
    Hostile("huge line", "line.jsonl", _sparse(HEAD + b'{"question": "', 3 * GIB, b'"}\n' + TAIL), 6, (RECORD,)),
    Hostile("huge line", "nul.jsonl", _sparse(HEAD + TAIL, 3 * GIB, b"\n"), 6, (RECORD,)),
    Hostile("huge line", "line.csv", _sparse(_csv(GOOD[:3]) + b'"', GIB, b'",x\n' + _csv(GOOD[3:])[16:]), 6, (RECORD,)),
    Hostile("huge line", "line.json", _sparse(b"", 2 * GIB, b"\n"), None),
    Hostile("row of 64 MB", "row.jsonl", _content(lambda: _row(16 << 20)), 6, (RECORD,)),
    Hostile("row of 64 MB", "row30.jsonl", _content(lambda: _row(7 << 20))),
    Hostile("many turns", "turns.jsonl", _content(_turns)),
    Hostile("huge element", "array.json", _big_array, None, (RECORD,)),
    Hostile("unclosed quote", "quote.csv", _content(_unclosed), 6, (RECORD,)),
    Hostile("blank lines", "blank.jsonl", lambda path: _blank(path, 1)),
    Hostile("blank lines", "blank.csv", lambda path: _blank_csv(path, 1)),
    Hostile("many keys", "keys.jsonl", _many_keys, 7),
    Hostile("odd JSON", "deep.jsonl", _content(lambda: among(deep(10**6)))),
    Hostile("odd JSON", "odd.jsonl", _content(lambda: among(b"".join(ODD_LINES))), 7),
    Hostile("odd JSON", "deep.json", _content(lambda: b"[" + deep(10**6) + b"]"), None),
    Hostile("parquet page", "page.parquet", _page_bomb, None),
    Hostile("parquet dictionary", "dictionary.parquet", _dictionary_bomb, None, (EXPANSION,)),
    Hostile("parquet rows", "rows.parquet", _row_bomb, None, (EXPANSION,)),
    Hostile("parquet footer", "rows.parquet", lambda path: footer_only(path, 1, 10**15), None),
    Hostile("parquet footer", "deep.parquet", lambda path: footer_only(path, 50_000, 1), None),
    Hostile("wide CSV", "wide.csv", _content(_wide), None),
)

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
