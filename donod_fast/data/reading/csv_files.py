"""CSV and TSV files with a header, streamed; a row with the wrong number of fields affects only that row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from donod_fast.data.reading.source import Unmarked
from donod_fast.data.reading.streams import BOM, FileFacts, changed_error, reading, scanning
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.system.places import Place
from donod_fast.system.wording import plural

DELIMITERS = {"csv": ",", "tsv": "\t"}
FIELD_LIMIT = 1 << 28
"""Maximum characters in one field. Python's own limit (131072) is too short for long answers; without a
limit, one missing quotation mark could fill the memory."""
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
        """Stream rows as records; see :class:`Source`."""
        if start >= stop:
            return
        with reading(self.facts) as stream:
            for line, data, problem in islice(_rows(self.facts.name, stream, self.kind), start, stop):
                yield Record(first_row + start, self.facts.name, f"line {line}", data, None, problem)
                start += 1
            if start < stop:
                raise changed_error(self.facts, f"{plural(start, 'row')}, {self.rows} before")


def open_csv(name: str, place: Place, compression: str | None, kind: str) -> CsvFile:
    """Count and hash a CSV or TSV file in one streaming pass.

    Raises:
        CorpusError: the file cannot be read, has no header, or column names that repeat.
    """
    with scanning(name, place, compression) as scan:
        rows = sum(1 for _ in _rows(name, scan.stream, kind))
    return CsvFile(scan.facts, rows, kind)


class _Lines:
    """Decoded lines for csv.reader, with the line number and decoding problem that the reader does not report."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0  # number of the last line returned
        self.ended = False
        self.problem: str | None = None  # in the lines returned since it was last cleared

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(BOM)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            self.problem = f"not UTF-8: byte 0x{line[error.start]:02x} in line {self.number}"
            return line.decode("utf-8", errors="replace")


def _rows(name: str, stream: BinaryIO, kind: str) -> Iterator[tuple[int, dict[str, Any] | None, str | None]]:
    """Yield (line number, record, problem) for each row; the first row names the columns."""
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_LIMIT))
    lines = _Lines(stream)
    reader = csv.reader(lines, delimiter=DELIMITERS[kind])
    columns: list[str] | None = None
    while True:
        line, lines.problem, fields = lines.number + 1, None, []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.problem = lines.problem or f"not valid {kind.upper()}: {error}"
        if not fields and lines.problem is None:
            continue  # a blank line
        if lines.ended:
            # The reader asked for more lines within a row: it was inside a quoted field.
            lines.problem = "a quotation mark opens here and is never closed"
        if columns is None:
            columns = _checked_header(name, line, fields, lines.problem)
        elif lines.problem is not None:
            yield line, None, lines.problem
        elif len(fields) != len(columns):
            yield line, None, f"{len(fields)} fields, but the header names {plural(len(columns), 'column')}"
        else:
            yield line, dict(zip(columns, fields, strict=True)), None


def _checked_header(name: str, line: int, fields: list[str], problem: str | None) -> list[str]:
    if problem is None:
        repeated = sorted({field for field in fields if fields.count(field) > 1})
        # A first column without a name is the index that pandas writes.
        unlikely = [
            field
            for position, field in enumerate(fields)
            if (not field.strip() and position > 0) or len(field) > HEADER_NAME_LIMIT or _is_number(field)
        ]
        if repeated:
            problem = f"the header repeats the column {repeated[0][:HEADER_NAME_LIMIT]!r}"
        elif unlikely:
            problem = f"the first row is not a header: {unlikely[0][:40]!r} is not a column name"
    if problem is not None:
        raise CorpusError(f"{name}, line {line}: {problem}; the first row must name each column once")
    return fields


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
