"""The sizes of a Parquet file's pages, as their own headers tell them: what decompressing them will take.

A page is decompressed as a whole, a value of a dictionary is copied into every row that names it, and a footer may say
anything. The headers are read here before Arrow reads the pages, without decompressing any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from donod_fast.data.reading.parquet_footer import Chunk
from donod_fast.data.reading.thrift import Struct
from donod_fast.errors import CorpusError
from donod_fast.system.limits import MIB, PAGE_BYTES, ReadLimits

_HEADER_BYTES = 1 << 10
_MOST_HEADER_BYTES = 1 << 24  # its statistics may hold long values
_DICTIONARY = 2  # PageType.DICTIONARY_PAGE
_COUNTS = (
    5,
    7,
    8,
)  # fields of PageHeader: a header of data, of a dictionary, of data in version 2; each has num_values


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its header.

    Attributes:
        is_dictionary: whether it holds the values that other pages name.
        plain: bytes when it is decompressed.
        stored: bytes in the file, without the header.
        values: number of its values.
    """

    is_dictionary: bool
    plain: int
    stored: int
    values: int

    @property
    def of_value(self) -> int:
        """Bytes of a value: the mean, or of a dictionary the most that one can have."""
        return self.plain - 4 * (self.values - 1) if self.is_dictionary else -(-self.plain // max(self.values, 1))


def bytes_of_row(name: str, file: BinaryIO, group: Sequence[Chunk], limits: ReadLimits) -> int:
    """Check the pages of a row group.

    Args:
        name: the file as the user gave it, and the place of the group.
        file: the file, seekable.
        group: its columns.
        limits: how many times its stored size a column may give.

    Returns:
        Bytes that one row can take among its neighbours: by the largest pages, and the largest value of a dictionary.

    Raises:
        CorpusError: a page or a column is too large, or its headers are damaged.
    """
    total = 0
    for column in group:
        pages = list(_pages(name, file, column))
        plain, stored = sum(page.plain for page in pages), sum(page.stored for page in pages)
        values = sum(page.values for page in pages if not page.is_dictionary)
        largest = max((page.plain for page in pages), default=0)
        if largest > PAGE_BYTES:
            raise _refusal(name, column, f"has a page of {largest / MIB:,.0f} MiB, and {PAGE_BYTES // MIB} are allowed")
        if max(plain, values) > limits.plain_bytes(stored):
            raise _refusal(
                name,
                column,
                f"expands too much: {plain / MIB:,.0f} MiB and {values:,} values out of {stored:,} bytes; if you trust "
                "it, raise --max-expansion",
            )
        total += max((page.of_value for page in pages), default=0)
    return total


def _refusal(name: str, column: Chunk, problem: str) -> CorpusError:
    return CorpusError(f"{name}: the column {column.path[:100]!r} {problem}")


def _pages(name: str, file: BinaryIO, column: Chunk) -> Iterator[Page]:
    at = column.begin
    values = 0
    while values < column.values:
        page, size = _page(name, file, at, column)
        yield page
        values += 0 if page.is_dictionary else max(page.values, 0)
        at += size + page.stored


def _page(name: str, file: BinaryIO, at: int, column: Chunk) -> tuple[Page, int]:
    size = _HEADER_BYTES
    while True:
        file.seek(at)
        content = file.read(size)
        try:
            fields, length = Struct(content).read()
            break
        except IndexError:
            if len(content) < size or size >= _MOST_HEADER_BYTES:
                raise _damaged(name, column) from None
            size *= 8
    counts: dict[int, Any] = next((fields[field] for field in _COUNTS if isinstance(fields.get(field), dict)), {})
    numbers = (fields.get(1), fields.get(2), fields.get(3), counts.get(1, 0))
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or not length:
        raise _damaged(name, column)
    kind, plain, stored, values = numbers
    return Page(kind == _DICTIONARY, plain, stored, values), length  # type: ignore[arg-type]


def _damaged(name: str, column: Chunk) -> CorpusError:
    return _refusal(name, column, "cannot be read: the header of a page is damaged; fetch the file again")


__all__ = ["Page", "bytes_of_row"]
