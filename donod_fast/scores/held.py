"""A corpus that compares each of its records with the hash of the record that was scored.

Size and time of a file do not show that a bit flipped. So a record that is read to be written, shown or embedded is
compared with the hash in its part; every command that joins records to scores reads them from here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from donod_fast.data.reading import Corpus
from donod_fast.data.reading.python_rows import NAME as PYTHON_ROWS
from donod_fast.data.reading.record_hashes import record_hash, row_hashes
from donod_fast.data.types import Record, TokenizedSample
from donod_fast.errors import CorpusError
from donod_fast.scores.rows import HASH

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.data.shards import ShardPlan

_log = logging.getLogger(__name__)


class ScoredRecords(Protocol):
    """What is used here of a ``ScoresFolder``."""

    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its path or URL."""

    @property
    def plan(self) -> ShardPlan:
        """Which rows are in which part."""

    def has_part(self, part: int) -> bool:
        """Whether the part is there."""

    def record_hashes(self, part: int) -> list[bytes | None] | None:
        """The hashes of the records of a part; None if the part is absent or has none."""


class HeldCorpus(Corpus):
    """The corpus of a scores folder; :meth:`records` refuses a record that is not the one that was scored."""

    def __init__(self, corpus: Corpus, folder: ScoredRecords) -> None:
        super().__init__(corpus.sources)
        self._folder = folder
        self._hashes: Sequence[bytes | None] | None = None
        self._bounds = (0, 0)  # of the rows that _hashes are for
        self._warned = False

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Stream the records of ``start <= row < stop``; see ``Corpus.records``.

        Raises:
            CorpusError: an input cannot be read, or a record has changed since it was scored; names file and row.
            StoreError: a part of the folder is damaged.
        """
        for record in super().records(start, stop):
            wanted = self._wanted(record.row)
            if wanted is not None and wanted != record_hash(record):
                raise changed_record(record.row, f"{record.file}, {record.place}")
            yield record

    def check_batch(self, rows: Sequence[int], batch: pa.RecordBatch) -> None:
        """Compare rows of a table with what was scored.

        Args:
            rows: their numbers in the corpus, ascending.
            batch: the rows, with all columns of the table.

        Raises:
            CorpusError, StoreError: as :meth:`records`.
        """
        for row, found in zip(rows, row_hashes(batch), strict=True):
            wanted = self._wanted(row)
            if wanted is not None and wanted != found:
                raise changed_record(row, place_of(self._folder.manifest, row))

    def _wanted(self, row: int) -> bytes | None:
        """The hash of a row when it was scored; None if it is not known."""
        begin, stop = self._bounds
        if not begin <= row < stop:
            part = self._folder.plan.part_of(row)
            self._bounds, self._hashes = self._folder.plan.part_range(part), self._folder.record_hashes(part)
            begin = self._bounds[0]
            if self._hashes is None and not self._warned and self._folder.has_part(part):
                self._warned = True
                _log.warning(
                    "an earlier release scored rows of %s and kept no hashes of the records: whether a record has "
                    "changed since is known by size and time of its file only",
                    self._folder.name,
                )
        return None if self._hashes is None else self._hashes[row - begin]


def held(corpus: Corpus, folder: ScoredRecords) -> HeldCorpus:
    """The corpus, which then compares its records with the hashes in a folder that was scored from it."""
    return HeldCorpus(corpus, folder)


def refuse_changed(folder: ScoredRecords, table: pa.Table, samples: Sequence[TokenizedSample]) -> None:
    """Refuse to add columns of records that have changed to their scores.

    Args:
        folder: the folder.
        table: rows of a part, with the hashes of their records if it has them.
        samples: the same rows as they are read now.

    Raises:
        CorpusError: a record has changed since it was scored; names file and row.
    """
    if HASH not in table.column_names:
        return
    for wanted, sample in zip(table.column(HASH).to_pylist(), samples, strict=True):
        if wanted is not None and sample.hash and wanted != sample.hash:
            raise changed_record(sample.row, place_of(folder.manifest, sample.row))


def changed_record(row: int, place: str) -> CorpusError:
    """The error for a record that is not the one that was scored."""
    if place.startswith(f"{PYTHON_ROWS}, "):
        return CorpusError(
            f"{place}: row {row} is not the one that was scored; give the rows that were scored, unchanged and in order"
        )
    return CorpusError(
        f"{place}: row {row} is not the record that was scored, although size and time of the file are the same; "
        "restore the file from a copy, or score it into another folder"
    )


def place_of(manifest: Mapping[str, Any], row: int) -> str:
    """The input of a row and its number there, for messages."""
    for entry in manifest["input"].get("inputs") or ():
        if row < entry["rows"]:
            return f"{entry['name']}, record {row}"
        row -= entry["rows"]
    return "the input"


__all__ = ["HeldCorpus", "changed_record", "held", "place_of", "refuse_changed"]
