"""Read JSON Lines and JSON lists, plain or gzipped, as a whole; errors name the line."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import CorpusError
from donod_fast.system.files import read_regular


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
    lines = [Line(place, data, record_digest(data)) for place, data in found]
    if not lines:
        raise CorpusError(f"{path} is empty; give a file with one JSON object per line")
    return lines


def record_digest(data: dict[str, Any]) -> str:
    """SHA-256 of a record in canonical JSON, in hex: it depends on the content only, not on the file's form."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content (decompressed if it is gzipped), in hex."""
    return hashlib.sha256(_text(path).encode()).hexdigest()


def _text(path: Path) -> str:
    try:
        data = read_regular(path)
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path} is a damaged gzip file ({error}); download it again") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); is it the right file?") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}") from error


def _lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{place}: not valid JSON ({error}); fix or remove the line") from error
        yield place, _object(place, data)


def _list(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: not valid JSON ({error}); download the file again") from error
    for number, record in enumerate(data):
        place = f"{path}, record {number}"
        yield place, _object(place, record)


def _object(place: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CorpusError(f"{place}: a {type(data).__name__} instead of a JSON object; fix or remove it")
    return data
