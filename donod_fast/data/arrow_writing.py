"""Write tables as Arrow IPC files (``.arrow``, ``.feather``) and streams (``.arrows``)."""

from __future__ import annotations

from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from donod_fast.errors import InputError

FEATHER = ".feather"
STREAM = ".arrows"
ARROW_SUFFIXES = (".arrow", FEATHER, STREAM)

ROWS_PER_BATCH = 4096
"""Rows of a record batch: it is the unit where reading can start, and is read as a whole."""


class ArrowWriter:
    """Writes tables one after the other, with one dictionary for each column that has dictionaries.

    The file format has one dictionary for each column. So each further table may only add values to it, and they are
    written as deltas.

    Args:
        file: where the bytes go; it stays open.
        schema: of all tables.
        suffix: one of ``ARROW_SUFFIXES``; Feather files are compressed with LZ4, as other writers of Feather do it.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema, suffix: str = ".arrow") -> None:
        compression = "lz4" if suffix == FEATHER else None
        options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
        new: Any = pa.ipc.new_stream if suffix == STREAM else pa.ipc.new_file
        self._writer = new(file, schema, options=options)
        self._before = schema.empty_table()

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write rows as record batches of at most ``ROWS_PER_BATCH``, or ``row_group_size`` if that is less.

        Raises:
            InputError: the values of a column are too many for the numbers of its dictionary.
        """
        try:
            # The dictionaries of the tables before come first, so that the new ones only add to them
            together = pa.concat_tables([self._before, table]).unify_dictionaries().combine_chunks()
        except pa.ArrowInvalid as error:
            raise InputError(
                f"the rows have too many values for a dictionary of an Arrow file ({error}); end the name in .parquet"
            ) from error
        self._before = together.slice(0, 0)
        for batch in together.to_batches(max_chunksize=min(row_group_size or ROWS_PER_BATCH, ROWS_PER_BATCH)):
            self._writer.write_batch(batch)

    def __enter__(self) -> ArrowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


__all__ = ["ARROW_SUFFIXES", "FEATHER", "STREAM", "ArrowWriter"]
