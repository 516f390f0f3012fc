"""JSON Lines (streamed, with byte offsets for skipping) and JSON documents (loaded whole, one at a time)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

from donod_fast.data.reading.encodings import BOM, CR_ONLY, INNER_BOM, has_remedy, not_utf8, refuse_wide_text
from donod_fast.data.reading.json_texts import elements, first_bracket, member_position, one_line
from donod_fast.data.reading.line_scan import Checkpoints, scan_lines
from donod_fast.data.reading.source import Checkpoint, Unmarked
from donod_fast.data.reading.streams import FileFacts, changed_error, peeking, reading, scanning
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.system.places import Place
from donod_fast.system.wording import plural

SNIFFED_LINES = 20
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")

RECORD_LISTS = frozenset({"messages", "conversations", "conversation", "prompt", "completion", "tools"})
"""Columns whose lists of objects belong to one record: such a list is not a corpus."""


@dataclass(frozen=True, slots=True)
class JsonLinesFile(Unmarked):
    """A JSON Lines file. Blank lines are not rows; an invalid line is a row with a problem.

    Attributes:
        facts: the file as scanned.
        rows: number of lines that are not blank.
        checkpoints: rows with the position of their lines in the plain bytes: one per
            ``CHECKPOINT_ROWS`` after a scan, or those of its description if the file is known.
    """

    facts: FileFacts
    rows: int
    checkpoints: Checkpoints = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Hash of the kind and of the bytes as stored."""
        return f"jsonl {self.facts.digest}"

    def describe(self) -> dict[str, Any]:
        """The facts that :func:`open_json_lines` and a later check need, as JSON types."""
        return self.facts.describe("jsonl", self.rows)

    def checkpoint(self, row: int) -> Checkpoint | None:
        """The nearest checkpoint at or before a row; None if the file is compressed. See :class:`Source`."""
        # A compressed stream can only be read from its beginning.
        return self.checkpoints.before(row) if self.facts.compression is None else None

    def checkpoint_after(self, row: int) -> int:
        """The byte offset of the first checkpoint at or after a row, or the file's size; see :class:`Source`."""
        if self.facts.compression is not None:
            return -1
        offset = self.checkpoints.offset_after(row)
        return self.facts.size if offset is None else offset

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream rows as records with their raw bytes; see :class:`Source`."""
        if start >= stop:
            return
        row, offset, line = self.checkpoint(start) or (0, 0, 1)
        end = self.checkpoint_after(stop) if self.facts.compression is None else None
        with reading(self.facts, offset, end) as stream:
            for _, number, raw in islice(_numbered_rows(stream, offset, line), start - row, stop - row):
                data, problem = parse_object(raw)
                yield Record(first_row + start, self.facts.name, f"line {number}", data, raw, problem)
                start += 1
            if start < stop:
                raise changed_error(self.facts, f"{plural(start, 'row')}, {self.rows} before")


def open_json_lines(name: str, place: Place, compression: str | None) -> JsonLinesFile:
    """Count and hash a JSON Lines file in one streaming pass, without parsing it.

    Raises:
        CorpusError: the file cannot be read, or is in UTF-16 or UTF-32.
    """
    with scanning(name, place, compression) as scan:
        refuse_wide_text(name, scan.stream, compression)
        rows, checkpoints = scan_lines(scan.stream)
    return JsonLinesFile(scan.facts, rows, checkpoints)


def parse_object(raw: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """Parse one line: (the object, None) or (None, the problem). Raises nothing."""
    value, problem = _parse(raw)
    if problem is None and not isinstance(value, dict):
        remedy = "; a file that is one JSON array must be named .json" if isinstance(value, list) else ""
        return None, f"{_kind(value)}, not a JSON object{remedy}"
    return value, problem


def _numbered_rows(stream: BinaryIO, offset: int, line: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (byte offset, line number, line without its line end) of the lines that are not blank."""
    for number, text in enumerate(stream, line):
        begin, offset = offset, offset + len(text)
        row = text.removeprefix(BOM) if number == 1 else text
        if row.strip():
            yield begin, number, _without_line_end(row)


def _without_line_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line


def _parse(raw: bytes) -> tuple[Any, str | None]:
    try:
        return json.loads(raw.decode("utf-8")), None
    except UnicodeDecodeError as error:
        return None, not_utf8(raw[error.start], f"at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        if raw.startswith(BOM):
            return None, INNER_BOM
        if error.msg == "Extra data" and b"\r" in raw and b"\n" not in raw:
            return None, CR_ONLY
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        return None, f"not valid JSON: {error.msg} at {place}"
    except RecursionError:
        return None, "the JSON is nested too deep"
    except ValueError as error:  # an integer with more digits than Python converts
        return None, f"not readable JSON: {error}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {list: "an array", str: "a string", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


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
        """Load the document and yield rows as records with their own text; see :class:`Source`."""
        if start >= stop:
            return
        with reading(self.facts) as stream:
            content = stream.read()
        try:
            for row, (item, raw) in enumerate(islice(self._elements(content), start, stop), start):
                data, problem = (item, None) if isinstance(item, dict) else (None, f"{_kind(item)}, not an object")
                yield Record(first_row + row, self.facts.name, f"record {row}", data, raw, problem)
                start += 1
        except (ValueError, IndexError, RecursionError) as error:  # it was valid when it was opened
            raise changed_error(self.facts, str(error)) from error
        if start < stop:
            raise changed_error(self.facts, f"{plural(start, 'row')}, {self.rows} before")

    def _elements(self, content: bytes) -> Iterator[tuple[Any, bytes]]:
        if _ARRAY.match(content):  # parsed element by element, and only the first ones
            text = content.removeprefix(BOM).decode("utf-8")
            return elements(text, first_bracket(text))
        text, _, begin = _document(self.facts.name, content)
        return elements(text, begin) if begin >= 0 else iter([(json.loads(text), one_line(text))])


def open_json_document(name: str, place: Place, compression: str | None) -> JsonDocument:
    """Load a JSON document once to count its rows and to hash it.

    Raises:
        CorpusError: the file cannot be read, is in UTF-16 or UTF-32, or is not valid JSON, with the position.
    """
    with scanning(name, place, compression) as scan:
        refuse_wide_text(name, scan.stream, compression)
        rows = _document(name, scan.stream.read())[1]
    return JsonDocument(scan.facts, rows)


def _document(name: str, content: bytes) -> tuple[str, int, int]:
    """Text, number of rows, and the position of the array of rows in the text (-1: the text is the only row)."""
    content = content.removeprefix(BOM)
    if not content.strip():
        return "", 0, -1
    value, problem = _parse(content)
    if problem is not None:
        remedy = "" if has_remedy(problem) else "; fix the file, or write one record per line (JSON Lines)"
        raise CorpusError(f"{name}: {problem}{remedy}")
    text = content.decode("utf-8")
    if isinstance(value, dict):
        wrapped = _wrapped_rows(value)
        return (text, 1, -1) if wrapped is None else (text, len(value[wrapped]), member_position(text, wrapped))
    if not isinstance(value, list):
        raise CorpusError(f"{name}: contains {_kind(value)}; give an array of objects, or JSON Lines")
    return text, len(value), first_bracket(text)


def _wrapped_rows(value: dict[str, Any]) -> str | None:
    """The key of the rows within ``{"data": [{…}, …]}``, or None if the object is itself a record."""
    lists = [
        key
        for key, items in value.items()
        if isinstance(items, list) and items and all(isinstance(item, dict) for item in items)
    ]
    return lists[0] if len(lists) == 1 and lists[0] not in RECORD_LISTS else None


def sniff_json(name: str, place: Place, compression: str | None) -> str:
    """Decide by content whether a file is JSON Lines (``"jsonl"``) or one JSON document (``"json"``).

    Raises:
        CorpusError: the file cannot be read, or is in UTF-16 or UTF-32.
    """
    with peeking(name, place, compression) as stream:
        refuse_wide_text(name, stream, compression)
        first = next(_numbered_rows(stream, 0, 1), (0, 1, b""))[2]
        value, problem = _parse(first)
        if problem is None:
            if any(line.strip() for line in stream):
                return "jsonl"
            # One line with one record: read as JSON Lines, its bytes can be written back unchanged.
            return "jsonl" if isinstance(value, dict) and _wrapped_rows(value) is None else "json"
        if first.lstrip().startswith(b"["):
            return "json"
        rest = stream.read()
    # Several lines, the first of which is not JSON: a document over many lines, or an invalid line.
    if _parse(first + b"\n" + rest)[1] is None:
        return "json"
    following = rest.split(b"\n", SNIFFED_LINES)[:SNIFFED_LINES]
    return "jsonl" if any(parse_object(line)[0] is not None for line in following) else "json"
