"""Read JSON Lines and JSON lists, plain or gzipped, as a whole; errors name the line."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import CorpusError
from donod_fast.system.files import open_regular
from donod_fast.system.limits import BENCHMARK_BYTES, MIB, ReadLimits


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a file.

    Attributes:
        place: file and line (or record), for messages.
        data: the record.
        digest: SHA-256 of the record in canonical JSON, in hex.
    """

    place: str
    data: dict[str, Any]
    digest: str


def read_records(path: Path) -> list[Line]:
    """All records of a ``.jsonl`` or ``.json`` file (a list of objects), either with ``.gz``.

    Raises:
        CorpusError: the file cannot be read, is empty, or a line is not a JSON object; the message names the line.
    """
    text = _text(path)
    found = _list(path, text) if text.lstrip()[:1] == "[" else _lines(path, text)
    lines = [Line(place, data, _digest(place, data)) for place, data in found]
    if not lines:
        raise CorpusError(f"{path} is empty; give a file with one JSON object per line")
    return lines


def _digest(place: str, data: dict[str, Any]) -> str:
    try:
        return record_digest(data)
    except RecursionError as error:
        raise CorpusError(f"{place}: the JSON is nested too deep; fix or remove it") from error


def record_digest(data: dict[str, Any]) -> str:
    """SHA-256 of a record in canonical JSON, in hex: it depends on the content only, not on the file's form."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content (decompressed if it is gzipped), in hex."""
    return hashlib.sha256(_text(path).encode()).hexdigest()


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            data = _bounded(path, gzip.GzipFile(fileobj=file) if packed else file)
        return data.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path} is a damaged gzip file ({error}); download it again") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); is it the right file?") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}") from error


def _bounded(path: Path, stream: gzip.GzipFile | io.BufferedReader) -> bytes:
    """The bytes of a stream, block by block, so that a file that expands is refused in time."""
    stored = path.stat().st_size
    most = min(BENCHMARK_BYTES, ReadLimits.DEFAULT.plain_bytes(stored))
    blocks, size = [], 0
    while block := stream.read(MIB):
        size += len(block)
        if size > most:
            raise CorpusError(
                f"{path} has more than {most // MIB:,} MiB of text out of {stored:,} bytes; is it the right file?"
            )
        blocks.append(block)
    return b"".join(blocks)


def _parsed(place: str, text: str, remedy: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise CorpusError(f"{place}: the JSON is nested too deep; {remedy}") from error
    except ValueError as error:
        raise CorpusError(f"{place}: not valid JSON ({error}); {remedy}") from error


def _lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        if len(line) > ReadLimits.DEFAULT.record_bytes:
            raise CorpusError(
                f"{place}: {len(line):,} characters, {ReadLimits.DEFAULT.record_bytes:,} are allowed; remove the line"
            )
        yield place, _object(place, _parsed(place, line.removesuffix("\n"), "fix or remove the line"))


def _list(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in enumerate(_parsed(str(path), text, "download the file again")):
        place = f"{path}, record {number}"
        yield place, _object(place, record)


def _object(place: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CorpusError(f"{place}: a {type(data).__name__} instead of a JSON object; fix or remove it")
    return data
