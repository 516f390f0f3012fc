"""Rows that can be read only once (generators, streamed data sets): read to their end, and kept to be read again.

A corpus needs the number of its rows before it is scored, and some readers come twice. The rows are kept in memory up
to :data:`IN_MEMORY`, and beyond it in a temporary file, which the system deletes with the process.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from donod_fast.data.reading.python_rows import NAME
from donod_fast.data.reading.record_hashes import record_hash
from donod_fast.data.reading.source import Anywhere
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError

IN_MEMORY = 64 << 20
"""Bytes of rows that are kept in memory."""

TOGETHER = 256
"""Rows that are kept and read together."""


class OnePassRows(Anywhere):
    """Records that were read once."""

    def __init__(self, records: Iterable[Record]) -> None:
        """Read all records.

        Raises:
            CorpusError: the temporary file cannot be written.
        """
        self.rows = 0
        self._lock = threading.Lock()
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self._places: list[tuple[int, int] | list[Record]] = []
        content, remaining = hashlib.sha256(), iter(records)
        while batch := list(islice(remaining, TOGETHER)):
            for record in batch:
                content.update(record_hash(record))
            self._places.append(self._kept(batch))
            self.rows += len(batch)
        self.digest = f"rows {content.hexdigest()}"

    def describe(self) -> dict[str, Any]:
        """Rows and hash; these rows cannot be opened again from their description."""
        return {"kind": "rows", "name": NAME, "rows": self.rows, "digest": self.digest}

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Yield rows as records; see :class:`Source`."""
        for at in range(start // TOGETHER, -(-stop // TOGETHER)):
            begin = at * TOGETHER
            for row, record in enumerate(self._read(self._places[at]), begin):
                if start <= row < stop:
                    yield replace(record, row=first_row + row, place=f"record {row}")

    def _kept(self, batch: list[Record]) -> tuple[int, int] | list[Record]:
        try:
            content = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)
        except Exception:  # a value may refuse in any way, and its rows then stay in memory as they are
            return batch
        try:
            begin = self._file.tell()
            self._file.write(content)
        except OSError as error:
            raise CorpusError(
                f"rows that are read once cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}; free "
                "some space, choose another folder by the variable TMPDIR, or give a file"
            ) from error
        return begin, len(content)

    def _read(self, place: tuple[int, int] | list[Record]) -> list[Record]:
        if isinstance(place, list):
            return place
        with self._lock:
            self._file.seek(place[0])
            content = self._file.read(place[1])
        found: list[Record] = pickle.loads(content)  # what this object wrote
        return found


__all__ = ["IN_MEMORY", "TOGETHER", "OnePassRows"]
