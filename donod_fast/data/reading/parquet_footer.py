"""The columns of a Parquet file's row groups, read from its footer.

pyarrow gives them too, but a damaged footer ends the whole process there: its library refuses such a column with an
exception of C++ that pyarrow does not catch (histograms of sizes that do not fit, a key that nobody has).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

from donod_fast.data.reading.thrift import Struct
from donod_fast.errors import CorpusError

_END = 8  # the footer's length in four bytes, and four magic bytes
_ROW_GROUPS, _COLUMNS, _COLUMN, _PATH, _VALUES, _STORED, _DATA, _DICTIONARY = 4, 1, 3, 3, 5, 7, 9, 11
"""Fields of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of a row group.

    Attributes:
        path: its name, with the names around it.
        values: number of its values.
        stored: bytes in the file.
        begin: where its first page begins.
    """

    path: str
    values: int
    stored: int
    begin: int


def row_groups(name: str, file: BinaryIO, number: int) -> list[list[Chunk]]:
    """The columns of each row group of a Parquet file.

    Args:
        name: the file as the user gave it.
        file: the file, seekable.
        number: how many row groups Arrow finds.

    Raises:
        CorpusError: the footer is damaged.
        OSError: it cannot be read.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _END, 0))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(size - _END - length, 0))
    try:
        footer, _ = Struct(file.read(length), whole=True).read()
        found = [[_chunk(column[_COLUMN]) for column in group[_COLUMNS]] for group in footer.get(_ROW_GROUPS) or []]
        if len(found) != number:
            raise IndexError
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{name}: cannot be read: its footer is damaged; fetch the file again") from error
    return found


def _chunk(facts: dict[int, Any]) -> Chunk:
    offsets = [facts[_DATA], facts.get(_DICTIONARY, facts[_DATA])]
    numbers = (facts[_VALUES], facts[_STORED], *offsets)
    if not all(isinstance(number, int) for number in numbers) or min(offsets) < 0:
        raise TypeError
    path = b".".join(facts[_PATH]).decode("utf-8", "replace")
    return Chunk(path, facts[_VALUES], max(facts[_STORED], 0), min(offsets))


__all__ = ["Chunk", "row_groups"]
