"""A scores folder, finished or not → its scored rows as arrays, and what became of the other rows. One pass over parts.

Memory grows with the number of scored rows and of columns: 8 bytes for each value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from donod_fast.data.types import HASH_BYTES, Status
from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.reports.blocks import Array
from donod_fast.scores.rows import CARRIED, HASH, SCORE_COLUMNS
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.scores.unscored import kind_of
from donod_fast.selection.out_of_core.groups import BY_FILE, CarriedGroups, FileGroups, PathGroups, path_columns
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.scores.columns import Column
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.scores.part_summary import PartSummary

MOST_ROWS = 5_000_000
"""Rows of a report at most: all of their numbers are in memory at once."""

_MOST_CAUSES = 1000
_NUMBERS = (*SCORE_COLUMNS, "tokens", "scored_tokens")


class Example(NamedTuple):
    """A row without a score.

    Attributes:
        row: its number.
        id: of the record.
        detail: file, place in the file, and cause.
    """

    row: int
    id: str
    detail: str


@dataclass
class StatusRows:
    """Rows with one status.

    Attributes:
        rows: how many.
        causes: how many by cause; causes beyond the first 1,000 are not told apart.
        examples: the first row of each cause.
    """

    rows: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Example] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Count a row."""
        self.rows += 1
        kind = kind_of(example.detail)
        if kind not in self.causes and len(self.causes) >= _MOST_CAUSES:
            kind = "…"
        self.causes[kind] += 1
        self.examples.setdefault(kind, example)


class Texts(NamedTuple):
    """A column of text: the number of each row's value, and the values; None is that of rows without one."""

    codes: Array
    names: list[str | None]


@dataclass
class ScoredTable:
    """What a report reads of a folder.

    Attributes:
        row: (n,) int64 numbers of the scored rows, rising.
        numbers: (n,) float64 by column, NaN where a row has no value.
        flags: (n,) uint8 by column: 0, 1, or 255 where a row has no value.
        texts: columns of text by name: carried ones as ``record.NAME``, and ``file`` where there are several inputs.
        columns: descriptions of the criteria's columns by name.
        statuses: rows by status; ``scored`` too.
        unscored: int64 numbers of the rows without a score, rising.
        hashes: (m,) uint64 hashes of all records that have one, scored or not.
        hashed: (m,) int64 their rows.
        rows: rows of the folder.
        seen: rows of the parts that were read.
        tokens, scored_tokens: of all rows that were read.
        truncated: scored rows that the length limit cut.
        samples: what was used of the records.
        summaries: of the parts that were read.
        missing: parts that are absent.
        foreign: parts with scores of other settings, each with the reason.
        partial: criteria that only some parts have.
    """

    row: Array
    numbers: dict[str, Array]
    flags: dict[str, Array]
    texts: dict[str, Texts]
    columns: dict[str, Column]
    statuses: dict[str, StatusRows]
    unscored: Array
    hashes: Array
    hashed: Array
    rows: int
    seen: int
    tokens: int
    scored_tokens: int
    truncated: int
    samples: SampleCounts
    summaries: list[PartSummary]
    missing: int
    foreign: list[str]
    partial: list[str]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def lengths(self) -> Array:
        """(n,) tokens of each scored row."""
        return self.numbers["tokens"]


def read_scored(folder: ScoresFolder) -> ScoredTable:
    """Read a folder; parts that are missing, or were scored with other settings, are left out and counted.

    Raises:
        InputError: it has too many rows.
        StoreError: no part is there, or one is damaged.
    """
    if folder.rows > MOST_ROWS:
        raise InputError(
            f"{folder.name} has {plural(folder.rows, 'row')}; a report holds at most {MOST_ROWS:,}, because its "
            "histograms and ranks are those of all rows. Score a part of the files into a folder of its own for a look "
            "at it; `donod-fast select`, and `donod-fast compare --sample`, have no such limit"
        )
    summaries, missing, foreign = _summaries(folder)
    if not summaries:
        if foreign:
            raise SettingsMismatchError(foreign[0])
        raise StoreError(f"{folder.name} holds no scores yet; run `donod-fast score` first")
    entries = [one for one in folder.signals if all(s.has_signals({one.name: one.fingerprint}) for s in summaries)]
    columns = {column.name: column for entry in entries for column in entry.columns}
    reader = _Reader(folder, columns)
    for summary in summaries:
        reader.read(summary.number)
    made = reader.finished()
    return ScoredTable(
        **made,
        columns=columns,
        rows=folder.rows,
        seen=sum(summary.rows for summary in summaries),
        tokens=sum(summary.tokens for summary in summaries),
        scored_tokens=sum(summary.scored_tokens for summary in summaries),
        samples=sum((summary.samples for summary in summaries), SampleCounts()),
        summaries=summaries,
        missing=missing,
        foreign=foreign,
        partial=[one.name for one in folder.signals if one not in entries],
    )


def _summaries(folder: ScoresFolder) -> tuple[list[PartSummary], int, list[str]]:
    found: list[PartSummary] = []
    missing, foreign = 0, []
    for part in range(folder.parts):
        try:
            summary = folder.summary(part)
        except SettingsMismatchError as error:
            foreign.append(str(error))
            continue
        if summary is None:
            missing += 1
        else:
            found.append(summary)
    return found, missing, foreign


class _Reader:
    """Takes parts in order, and joins what they hold."""

    def __init__(self, folder: ScoresFolder, columns: dict[str, Column]) -> None:
        self._folder = folder
        own = [name for name, column in columns.items() if column.kind == "number"]
        self._numbers: dict[str, list[Array]] = {name: [] for name in (*_NUMBERS, *own)}
        flags = [name for name, column in columns.items() if column.kind == "flag"]
        self._flags: dict[str, list[Array]] = {name: [] for name in ("truncated", *flags)}
        self._groups: dict[str, Any] = {CARRIED + name: CarriedGroups(name) for name in folder.carry}
        if len(folder.manifest["input"].get("inputs") or ()) > 1 and BY_FILE not in folder.carry:
            self._groups[BY_FILE] = FileGroups(folder)
        self._groups |= {name: PathGroups(folder, name) for name in path_columns(folder)}
        self._codes: dict[str, list[Array]] = {name: [] for name in self._groups}
        self._rows: list[Array] = []
        self._unscored: list[Array] = []
        self._hashes: list[Array] = []
        self._hashed: list[Array] = []
        self._statuses: dict[str, StatusRows] = {}

    def read(self, part: int) -> None:
        """Add a part. Raises StoreError: it is damaged, or gone."""
        carried = [groups.column for groups in self._groups.values() if groups.column is not None]
        names = ["row", "id", "status", "detail", *self._numbers, *self._flags, *carried, HASH]
        table = self._folder.read_columns(part, names)
        if table is None:
            raise StoreError(f"{self._folder.part_name(part)} is gone; run `donod-fast score` again to replace it")
        self._add_hashes(table)
        scored = self._count_statuses(table)
        don, nod = (table.column(name).to_numpy() for name in ("don", "nod"))
        there = np.flatnonzero(scored & ~np.isnan(don) & ~np.isnan(nod))
        row = table.column("row").to_numpy()
        self._rows.append(row[there])
        self._unscored.append(row[~scored])
        for name, found in self._numbers.items():
            found.append(table.column(name).to_numpy()[there].astype(np.float64))
        for name, found in self._flags.items():
            found.append(_flag_values(table.column(name))[there])
        for name, found in self._codes.items():
            groups = self._groups[name]
            found.append(groups.numbers(row, None if groups.column is None else table.column(groups.column))[there])

    def _count_statuses(self, table: pa.Table) -> Array:
        """Count the rows by status, and say which are scored."""
        import pyarrow.compute as pc

        scored = pc.equal(table.column("status"), str(Status.SCORED)).to_numpy()
        known = self._statuses.setdefault(str(Status.SCORED), StatusRows())
        known.rows += int(scored.sum())
        others = table.select(["row", "id", "status", "detail"]).filter(pc.not_equal(table.column("status"), "scored"))
        for one in others.to_pylist():
            self._statuses.setdefault(one["status"], StatusRows()).add(Example(one["row"], one["id"], one["detail"]))
        return np.asarray(scored, bool)

    def _add_hashes(self, table: pa.Table) -> None:
        if HASH not in table.column_names:
            return
        column = table.column(HASH).combine_chunks()
        there = ~np.asarray(column.is_null())
        content = b"".join(column.drop_null().to_pylist())
        assert HASH_BYTES == 8, "a hash is one number here"
        self._hashes.append(np.frombuffer(content, np.uint64))
        self._hashed.append(table.column("row").to_numpy()[there])

    def finished(self) -> dict[str, Any]:
        """What was read. The reader is empty afterwards, so that no column is in memory twice."""
        return {
            "row": _joined(self._rows, np.int64),
            "numbers": {name: _joined(found, np.float64) for name, found in self._numbers.items()},
            "flags": {name: _joined(found, np.uint8) for name, found in self._flags.items()},
            "texts": {
                name: Texts(_joined(found, np.int32), self._groups[name].names) for name, found in self._codes.items()
            },
            "statuses": self._statuses,
            "unscored": _joined(self._unscored, np.int64),
            "hashes": _joined(self._hashes, np.uint64),
            "hashed": _joined(self._hashed, np.int64),
            "truncated": sum(int((found == 1).sum()) for found in self._flags["truncated"] or [np.zeros(0)]),
        }


def _joined(parts: list[Array], kind: Any) -> Array:
    found = np.concatenate([np.zeros(0, kind), *parts])
    parts[:] = [found]
    return found


def _flag_values(column: pa.ChunkedArray) -> Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(column.cast(pa.uint8()), 255).to_numpy(), np.uint8)


__all__ = ["MOST_ROWS", "Example", "ScoredTable", "StatusRows", "Texts", "read_scored"]
