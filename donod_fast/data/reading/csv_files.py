"""CSV and TSV files with a header, streamed; a row with the wrong number of fields affects only that row."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from donod_fast.data.reading.bounded_streams import MANY_BLANKS, blank_lines_skipped, rest_skipped
from donod_fast.data.reading.encodings import BOM, CR_ONLY, INNER_BOM, has_remedy, not_utf8, refuse_wide_text
from donod_fast.data.reading.source import Unmarked
from donod_fast.data.reading.streams import FileFacts, changed_error, reading, scanning
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.system.limits import ReadLimits
from donod_fast.system.places import Place
from donod_fast.system.wording import plural

DELIMITERS = {"csv": ",", "tsv": "\t"}
FIELD_LIMIT = 1 << 62
"""Python's own limit on a field (131072 characters) is too short for long answers; ours is on the bytes of a row."""
HEADER_NAME_LIMIT = 128


@dataclass(frozen=True, slots=True)
class CsvFile(Unmarked):
    """A CSV (``kind`` "csv") or TSV ("tsv") file; every value is a string."""

    facts: FileFacts
    rows: int
    kind: str

    @property
    def digest(self) -> str:
        """Hash of the kind and of the bytes as stored."""
        return f"{self.kind} {self.facts.digest}"

    def describe(self) -> dict[str, Any]:
        """The facts that :func:`open_csv` and a later check need, as JSON types."""
        return self.facts.describe(self.kind, self.rows)

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream rows as records with their own bytes; see :class:`Source`."""
        if start >= stop:
            return
        with reading(self.facts) as stream:
            rows = _rows(self.facts.name, stream, self.kind, self.facts.limits)
            for line, data, problem, raw in islice(rows, start, stop):
                yield Record(first_row + start, self.facts.name, f"line {line}", data, raw, problem, self.kind)
                start += 1
            if start < stop:
                raise changed_error(self.facts, f"{plural(start, 'row')}, {self.rows} before")

    def header(self) -> bytes:
        """The bytes of the header row, with byte order mark and line end.

        Raises:
            CorpusError: the file cannot be read, or has changed.
        """
        with reading(self.facts) as stream:
            return next((raw or b"" for *_, raw in _parsed(stream, self.kind, self.facts.limits)), b"")


def open_csv(
    name: str, place: Place, compression: str | None, kind: str, limits: ReadLimits = ReadLimits.DEFAULT
) -> CsvFile:
    """Count and hash a CSV or TSV file in one streaming pass.

    Raises:
        CorpusError: the file cannot be read, is in UTF-16 or UTF-32, has no header, or column names that repeat.
    """
    rows = longest = 0
    with scanning(name, place, compression, limits) as scan:
        refuse_wide_text(name, scan.stream, compression)
        for *_, raw in _rows(name, scan.stream, kind, limits):
            rows += 1
            longest = max(longest, limits.record_bytes + 1 if raw is None else len(raw))
    return CsvFile(scan.facts.with_longest(longest), rows, kind)


def header_columns(header: bytes, kind: str) -> list[str]:
    """The names in the bytes of a header row of a CSV or TSV file."""
    return next((fields for _, fields, _, _ in _parsed(io.BytesIO(header), kind, ReadLimits.DEFAULT)), [])


class _TooLargeError(Exception):
    """A row is larger than the limit."""


class _Lines:
    """Decoded lines for csv.reader, with their bytes, number and decoding problem, which the reader does not report."""

    def __init__(self, stream: BinaryIO, limits: ReadLimits) -> None:
        self._stream, self._limits = stream, limits
        self._blanks = 0  # blank lines in a row
        self.number = 0  # number of the last line returned
        self.ended = False
        self.taken: list[bytes] = []  # the lines returned since it was last cleared
        self.size = 0  # their bytes
        self.problem: str | None = None  # in these lines

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        most = self._limits.record_bytes + 1 - self.size
        line = self._stream.readline(most)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) == most:
            self.size += len(line) if line.endswith(b"\n") else rest_skipped(self._stream, line).size
            self._blanks = 0
            raise _TooLargeError
        self.taken.append(line)
        self.size += len(line)
        if self.number == 1:
            line = line.removeprefix(BOM)
        elif len(self.taken) == 1 and line.startswith(BOM):
            self.problem = INNER_BOM
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            self.problem = not_utf8(line[error.start], f"in line {self.number}")
            return line.decode("utf-8", errors="replace")

    def begin_row(self) -> int:
        """Forget the lines of the last row; the number of the line that follows."""
        self.problem, self.taken, self.size = None, [], 0
        return self.number + 1

    def skip_blanks(self) -> None:
        """Count a blank line between rows; of very many in a row the rest is skipped at once."""
        self._blanks = self._blanks + 1 if self.number > 1 else 0
        if self._blanks >= MANY_BLANKS:
            self.number += blank_lines_skipped(self._stream)[0]
            self._blanks = 0


def _parsed(
    stream: BinaryIO, kind: str, limits: ReadLimits
) -> Iterator[tuple[int, list[str], str | None, bytes | None]]:
    """Yield (line number, fields, problem, bytes) of every row that is not blank, the header too.

    The bytes of a row that is too large are None.
    """
    csv.field_size_limit(FIELD_LIMIT)
    lines = _Lines(stream, limits)
    reader = csv.reader(lines, delimiter=DELIMITERS[kind])
    while True:
        line, fields = lines.begin_row(), []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _TooLargeError:
            end = f" to line {lines.number}" if lines.number > line else ""
            cause = "; a quotation mark may not be closed" if lines.number > line else ""
            yield line, [], f"the row{end} has {lines.size:,} bytes or more, {limits.too_large}{cause}", None
            continue
        except csv.Error as error:
            lines.problem = lines.problem or _problem(kind, error)
        if not fields and lines.problem is None:
            lines.skip_blanks()
            continue
        if lines.ended:
            # The reader asked for more lines within a row: it was inside a quoted field.
            lines.problem = "a quotation mark opens here and is never closed"
        yield line, fields, lines.problem, b"".join(lines.taken)


def _problem(kind: str, error: csv.Error) -> str:
    # The csv module has no code for an error, only its text.
    if "new-line character" in str(error):
        return CR_ONLY
    return f"not valid {kind.upper()}: {error}"


def _rows(
    name: str, stream: BinaryIO, kind: str, limits: ReadLimits
) -> Iterator[tuple[int, dict[str, Any] | None, str | None, bytes | None]]:
    """Yield (line number, record, problem, bytes) for each row; the first row names the columns."""
    columns: list[str] | None = None
    for line, fields, problem, raw in _parsed(stream, kind, limits):
        if columns is None:
            columns = _checked_header(name, kind, line, fields, problem)
        elif problem is not None:
            yield line, None, problem, raw
        elif len(fields) != len(columns):
            counted = f"{len(fields)} fields, but the header names {plural(len(columns), 'column')}"
            yield line, None, counted, raw
        else:
            yield line, dict(zip(columns, fields, strict=True)), None, raw


def _checked_header(name: str, kind: str, line: int, fields: list[str], problem: str | None) -> list[str]:
    if problem is None:
        repeated = sorted(field for field, times in Counter(fields).items() if times > 1)
        # A first column without a name is the index that pandas writes.
        unlikely = [
            field
            for position, field in enumerate(fields)
            if (not field.strip() and position > 0) or len(field) > HEADER_NAME_LIMIT or _is_number(field)
        ]
        if repeated:
            problem = f"the header repeats the column {repeated[0][:HEADER_NAME_LIMIT]!r}"
        elif len(fields) == 1 and (separator := _other_separator(fields[0], kind)):
            problem = (
                f"the header is one column, {fields[0][:HEADER_NAME_LIMIT]!r}, as in files that are separated by "
                f"{separator}; convert it to {_SEPARATORS[DELIMITERS[kind]]}, which .{kind} files are separated by"
            )
        elif unlikely:
            problem = f"the first row is not a header: {unlikely[0][:40]!r} is not a column name"
    if problem is not None:
        rule = "" if has_remedy(problem) else "; the first row must name each column once"
        raise CorpusError(f"{name}, line {line}: {problem}{rule}")
    return fields


_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}


def _other_separator(header: str, kind: str) -> str | None:
    """What separates the names in a header that was read as one column; None if it is one name."""
    others = {mark: word for mark, word in _SEPARATORS.items() if mark != DELIMITERS[kind]}
    return next((word for mark, word in others.items() if len(list(filter(str.strip, header.split(mark)))) > 1), None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
