"""JSON Lines: streamed, with byte offsets for skipping."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

from donod_fast.data.reading.bounded_streams import LongLine, filled_lines
from donod_fast.data.reading.encodings import BOM, refuse_wide_text
from donod_fast.data.reading.json_texts import kind_of_value, parsed
from donod_fast.data.reading.line_scan import Checkpoints, scan_lines
from donod_fast.data.reading.source import Checkpoint, Unmarked
from donod_fast.data.reading.streams import FileFacts, changed_error, reading, scanning
from donod_fast.data.types import Record
from donod_fast.system.limits import ReadLimits
from donod_fast.system.places import Place
from donod_fast.system.wording import plural


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
            rows = numbered_rows(stream, offset, line, self.facts.limits)
            for _, number, raw in islice(rows, start - row, stop - row):
                data, problem = parse_object(raw, self.facts.limits)
                own = None if isinstance(raw, LongLine) else raw
                yield Record(first_row + start, self.facts.name, f"line {number}", data, own, problem)
                start += 1
            if start < stop:
                raise changed_error(self.facts, f"{plural(start, 'row')}, {self.rows} before")


def open_json_lines(
    name: str, place: Place, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT
) -> JsonLinesFile:
    """Count and hash a JSON Lines file in one streaming pass, without parsing it.

    Raises:
        CorpusError: the file cannot be read, or is in UTF-16 or UTF-32.
    """
    with scanning(name, place, compression, limits) as scan:
        refuse_wide_text(name, scan.stream, compression)
        rows, checkpoints, longest = scan_lines(scan.stream)
    return JsonLinesFile(scan.facts.with_longest(longest), rows, checkpoints)


def parse_object(raw: bytes, limits: ReadLimits = ReadLimits.DEFAULT) -> tuple[dict[str, Any] | None, str | None]:
    """Parse one line: (the object, None) or (None, the problem). Raises nothing."""
    if isinstance(raw, LongLine):
        return None, f"the line has {raw.size:,} bytes, {limits.too_large}"
    value, problem = parsed(raw)
    if problem is None and not isinstance(value, dict):
        remedy = "; a file that is one JSON array must be named .json" if isinstance(value, list) else ""
        return None, f"{kind_of_value(value)}, not a JSON object{remedy}"
    return value, problem


def numbered_rows(
    stream: BinaryIO, offset: int, line: int, limits: ReadLimits = ReadLimits.DEFAULT
) -> Iterator[tuple[int, int, bytes]]:
    """Yield (byte offset, line number, line without its line end) of the lines that are not blank."""
    for begin, number, text in filled_lines(stream, limits, line, offset):
        if isinstance(text, LongLine):
            if not text.is_blank:
                yield begin, number, text
            continue
        row = text.removeprefix(BOM) if number == 1 else text
        if row.strip():
            yield begin, number, _without_line_end(row)


def _without_line_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line


__all__ = ["JsonLinesFile", "numbered_rows", "open_json_lines", "parse_object"]
