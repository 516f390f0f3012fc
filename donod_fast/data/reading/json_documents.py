"""JSON documents: an array of records is streamed; an object, around an array or one record, is loaded whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from donod_fast.data.reading.bounded_streams import LongLine
from donod_fast.data.reading.encodings import BOM, has_remedy, refuse_wide_text
from donod_fast.data.reading.json_arrays import InvalidJsonError, JsonText
from donod_fast.data.reading.json_files import numbered_rows, parse_object
from donod_fast.data.reading.json_texts import elements, kind_of_value, member_position, one_line, parsed
from donod_fast.data.reading.source import Unmarked
from donod_fast.data.reading.streams import FileFacts, changed_error, peeking, reading, scanning
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.system.limits import MIB, ReadLimits
from donod_fast.system.places import Place
from donod_fast.system.wording import plural

SNIFFED_LINES = 20

RECORD_LISTS = frozenset({"messages", "conversations", "conversation", "prompt", "completion", "tools"})
"""Columns whose lists of objects belong to one record: such a list is not a corpus."""


@dataclass(frozen=True, slots=True)
class JsonDocument(Unmarked):
    """A JSON file that is one value: an array of records, an object around one, or one record."""

    facts: FileFacts
    rows: int

    @property
    def digest(self) -> str:
        """Hash of the kind and of the bytes as stored."""
        return f"json {self.facts.digest}"

    def describe(self) -> dict[str, Any]:
        """The facts that :func:`open_json_document` and a later check need, as JSON types."""
        return self.facts.describe("json", self.rows)

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Yield rows as records with their own text; see :class:`Source`."""
        if start >= stop:
            return
        with reading(self.facts) as stream:
            try:
                for row, (item, raw) in enumerate(islice(self._elements(stream), start, stop), start):
                    is_object = isinstance(item, dict)
                    data, problem = (item, None) if is_object else (None, f"{kind_of_value(item)}, not an object")
                    yield Record(first_row + row, self.facts.name, f"record {row}", data, raw, problem)
                    start += 1
            except (ValueError, IndexError, RecursionError, InvalidJsonError) as error:  # it was valid when opened
                raise changed_error(self.facts, str(error)) from error
        if start < stop:
            raise changed_error(self.facts, f"{plural(start, 'row')}, {self.rows} before")

    def _elements(self, stream: BinaryIO) -> Iterator[tuple[Any, bytes]]:
        whole = JsonText(stream, self.facts.limits)
        if whole.first() == "[":
            return ((value, one_line(text)) for value, text in whole.elements())
        content = whole.rest(self.facts.limits.document_bytes)
        text, _, begin = _document(self.facts.name, content or b"")
        return elements(text, begin) if begin >= 0 else iter([(json.loads(text), one_line(text))])


def open_json_document(
    name: str, place: Place, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT
) -> JsonDocument:
    """Read a JSON document once to count its rows and to hash it.

    Raises:
        CorpusError: the file cannot be read, is in UTF-16 or UTF-32, is not valid JSON, with the position, or is too
            large, or one of its records is.
    """
    with scanning(name, place, compression, limits) as scan:
        refuse_wide_text(name, scan.stream, compression)
        try:
            whole = JsonText(scan.stream, limits)
            if whole.first() == "[":
                rows = sum(1 for _ in whole.elements())
            else:
                content = whole.rest(limits.document_bytes)
                if content is None:
                    raise CorpusError(
                        f"{name}: a JSON file that is not an array is loaded whole, and has more than the "
                        f"{limits.document_bytes // MIB:,} MiB allowed; write one record per line (JSON Lines), or "
                        "raise --max-record-size"
                    )
                rows = _document(name, content)[1]
        except InvalidJsonError as error:
            raise _invalid(name, str(error)) from error
    return JsonDocument(scan.facts, rows)


def _invalid(name: str, problem: str) -> CorpusError:
    remedy = "" if has_remedy(problem) else "; fix the file, or write one record per line (JSON Lines)"
    return CorpusError(f"{name}: {problem}{remedy}")


def _document(name: str, content: bytes) -> tuple[str, int, int]:
    """Text, number of rows, and the position of the array of rows in the text (-1: the text is the only row)."""
    content = content.removeprefix(BOM)
    if not content.strip():
        return "", 0, -1
    value, problem = parsed(content)
    if problem is not None:
        raise _invalid(name, problem)
    text = content.decode("utf-8")
    if isinstance(value, dict):
        wrapped = _wrapped_rows(value)
        return (text, 1, -1) if wrapped is None else (text, len(value[wrapped]), member_position(text, wrapped))
    raise CorpusError(f"{name}: contains {kind_of_value(value)}; give an array of objects, or JSON Lines")


def _wrapped_rows(value: dict[str, Any]) -> str | None:
    """The key of the rows within ``{"data": [{…}, …]}``, or None if the object is itself a record."""
    lists = [
        key
        for key, items in value.items()
        if isinstance(items, list) and items and all(isinstance(item, dict) for item in items)
    ]
    return lists[0] if len(lists) == 1 and lists[0] not in RECORD_LISTS else None


def sniff_json(name: str, place: Place, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT) -> str:
    """Decide by content whether a file is JSON Lines (``"jsonl"``) or one JSON document (``"json"``).

    Raises:
        CorpusError: the file cannot be read, or is in UTF-16 or UTF-32.
    """
    with peeking(name, place, compression, limits=limits) as stream:
        refuse_wide_text(name, stream, compression)
        lines = numbered_rows(stream, 0, 1, limits)
        first = next(lines, (0, 1, b""))[2]
        if first.lstrip().startswith(b"["):
            return "json" if isinstance(first, LongLine) or not _is_line_of_many(first, lines) else "jsonl"
        if isinstance(first, LongLine):
            return "json" if next(lines, None) is None else "jsonl"
        value, problem = parsed(first)
        if problem is None:
            if next(lines, None) is not None:
                return "jsonl"
            # One line with one record: read as JSON Lines, its bytes can be written back unchanged.
            return "jsonl" if isinstance(value, dict) and _wrapped_rows(value) is None else "json"
        rest = stream.read(limits.document_bytes)
    # Several lines, the first of which is not JSON: a document over many lines, or an invalid line.
    if len(rest) < limits.document_bytes and parsed(first + b"\n" + rest)[1] is None:
        return "json"
    following = rest.split(b"\n", SNIFFED_LINES)[:SNIFFED_LINES]
    return "jsonl" if any(parse_object(line)[0] is not None for line in following) else "json"


def _is_line_of_many(first: bytes, lines: Iterator[tuple[int, int, bytes]]) -> bool:
    """Whether a line is a JSON value and not the last line."""
    return parsed(first)[1] is None and next(lines, None) is not None


__all__ = ["JsonDocument", "open_json_document", "sniff_json"]
