"""Checksums inside a Parquet file, over all of its bytes.

Parquet's own checksums cover the pages but neither their headers nor the footer with its schema. A sealed file has a
block of checksums between its data and its footer, where other readers of Parquet do not look::

    PAR1 | chunk 0 | chunk 1 | … | block | footer
    block: checksum of each chunk | number of chunks | MAGIC | checksum of the block so far and the footer

A chunk is a column of a row group with whatever bytes follow it. So the footer can be read and verified alone, and so
can some of the columns.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from donod_fast.system.checked_json import DamagedError

if TYPE_CHECKING:
    import pyarrow as pa

MARK = b"donod_fast.sealed"
"""Key of a footer that says that the file is sealed."""

_MAGIC = b"donodsum"
_PARQUET = b"PAR1"
_CHUNK_BYTES, _BLOCK_BYTES = 16, 32
_END = 4 + len(_MAGIC) + _BLOCK_BYTES


def sealed_bytes(table: pa.Table, **options: Any) -> bytes:
    """Write a table as a sealed Parquet file; equal tables give equal bytes.

    Args:
        table: the table; :data:`MARK` is added to the metadata of its schema.
        options: for ``pyarrow.parquet.write_table``.
    """
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), MARK: b"1"})
    pq.write_table(marked, buffer, write_page_checksum=True, write_statistics=False, **options)
    content = buffer.getvalue()
    at = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    bounds = _bounds(pq.read_metadata(io.BytesIO(content)), at)
    sums = b"".join(_sum(content[begin:end], _CHUNK_BYTES) for _, begin, end in bounds)
    block = sums + len(bounds).to_bytes(4, "little") + _MAGIC
    return content[:at] + block + _sum(block + content[at:], _BLOCK_BYTES) + content[at:]


@dataclass(frozen=True)
class SealedFile:
    """A Parquet file whose footer was verified.

    Attributes:
        metadata: its footer.
        sealed: whether it has checksums; files of earlier releases have none.
    """

    metadata: Any
    sealed: bool
    _file: BinaryIO
    _sums: bytes
    _data_end: int

    def table(self, columns: Collection[str] | None = None, *, use_threads: bool = True) -> pa.Table:
        """Read columns (all if None) and verify them.

        Raises:
            DamagedError: a column is not what was written.
            OSError, ValueError, pa.ArrowException: the file cannot be read.
        """
        import pyarrow.parquet as pq

        if self.sealed:
            for number, (path, begin, end) in enumerate(_bounds(self.metadata, self._data_end)):
                if columns is not None and path.partition(".")[0] not in columns and path not in columns:
                    continue
                self._file.seek(begin)
                wanted = self._sums[number * _CHUNK_BYTES : (number + 1) * _CHUNK_BYTES]
                if _sum(self._file.read(end - begin), _CHUNK_BYTES) != wanted:
                    raise DamagedError(f"the column {path!r} does not match its checksum")
        self._file.seek(0)
        file = pq.ParquetFile(self._file, page_checksum_verification=True)
        return file.read(None if columns is None else list(columns), use_threads=use_threads)


def open_sealed(file: BinaryIO, *, needs_seal: bool = False) -> SealedFile:
    """Read and verify the footer of a Parquet file.

    Args:
        file: the file, seekable; the caller closes it.
        needs_seal: refuse a file without checksums.

    Raises:
        DamagedError: the footer is not what was written, or the checksums are missing.
        OSError, ValueError, pa.ArrowException: the file cannot be read as Parquet.
    """
    import pyarrow.parquet as pq

    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - 8, 0))
    tail = file.read(8)
    at = size - 8 - int.from_bytes(tail[:4], "little")
    if tail[4:] != _PARQUET or at < 0:
        raise DamagedError("it is cut, or not a Parquet file")
    file.seek(max(at - _END, 0))
    end = file.read(min(_END, at))
    file.seek(at)
    footer = file.read(size - at)
    sums, sealed = b"", len(end) == _END and end[4 : 4 + len(_MAGIC)] == _MAGIC
    if sealed:
        begin = at - _END - int.from_bytes(end[:4], "little") * _CHUNK_BYTES
        if begin < 0:
            raise DamagedError("its checksums are damaged")
        file.seek(begin)
        sums = file.read(at - _END - begin)
        if _sum(sums + end[:-_BLOCK_BYTES] + footer, _BLOCK_BYTES) != end[-_BLOCK_BYTES:]:
            raise DamagedError("its footer does not match its checksum")
    file.seek(0)
    metadata = pq.read_metadata(file)
    if not sealed and (needs_seal or MARK in (metadata.metadata or {})):
        raise DamagedError("its checksums are missing")
    return SealedFile(metadata, sealed, file, sums, at - _END - len(sums))


def _bounds(metadata: Any, data_end: int) -> list[tuple[str, int, int]]:
    """Path, begin and end of each chunk, in the order of the file; together they are all bytes before ``data_end``."""
    starts = []
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        for at in range(rows.num_columns):
            chunk = rows.column(at)
            offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
            starts.append((min(offset for offset in offsets if offset is not None), chunk.path_in_schema))
    starts.sort()
    ends = [*(start for start, _ in starts[1:]), data_end]
    return [(path, at and start, end) for at, ((start, path), end) in enumerate(zip(starts, ends, strict=True))]


def _sum(content: bytes, size: int) -> bytes:
    return hashlib.sha256(content).digest()[:size]


__all__ = ["MARK", "SealedFile", "open_sealed", "sealed_bytes"]
