"""Divide a corpus into shards: which rows belong to which shard, and where their bytes are.

A shard is a range of rows that is read, scored and committed as one part. Its bounds depend only on the inputs and on
``part_rows``, never on the process that scores it:

- an input that fits completely into the current shard is added to it, so that many small files give few parts;
- any other input begins a new shard and is cut every ``part_rows`` rows;
- Parquet is cut between row groups. A row group of more than ``part_rows`` rows is cut inside.

Plain JSON Lines can be read from any shard's byte offset, Parquet from any row group. A compressed file, a CSV file and
a JSON document are read from their beginning: their shards form one *run*, which should go to one worker
(:meth:`ShardPlan.tasks`); so do the shards of one large row group.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from donod_fast.errors import StoreError
from donod_fast.system.sealed_parquet import open_sealed, sealed_bytes

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.data.reading.source import Checkpoint, Source

PART_ROWS = 1024
"""Default number of rows per part."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of one input within a shard.

    Attributes:
        input: the input's position in the corpus.
        start: first row, counted within the input.
        rows: number of rows, at least one.
        skip: rows to skip after ``offset``.
        offset: byte to read from (plain JSON Lines), -1 for other inputs.
        end: a byte at or after the end of the last row, -1 for other inputs.
        line: number of the line at ``offset``, from 1; 0 for other inputs.
    """

    input: int
    start: int
    rows: int
    skip: int = 0
    offset: int = -1
    end: int = -1
    line: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of one part, as sent to a worker.

    Attributes:
        number: the part's number, from 0.
        first_row: its first row in the corpus.
        segments: its row ranges, in row order.
    """

    number: int
    first_row: int
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        """Its number of rows."""
        return sum(segment.rows for segment in self.segments)

    @property
    def stop(self) -> int:
        """One past its last row."""
        return self.first_row + self.rows


_COLUMNS = ("shard", "run", "input", "start", "rows", "skip", "offset", "end", "line")


class ShardPlan:
    """All shards of a corpus, in the order of their rows.

    Args:
        segments: (n, 9) int64, one line per segment: shard, run, and the fields of :class:`Segment`. Shard numbers
            start at 0 and have no gaps.
    """

    def __init__(self, segments: Any) -> None:
        self._segments = segments
        shards = segments[:, 0]
        self._begin = np.flatnonzero(np.diff(shards, prepend=-1))  # of each shard among the segments
        rows = np.add.reduceat(segments[:, 4], self._begin) if len(segments) else np.zeros(0, np.int64)
        self._first = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows)])

    def __len__(self) -> int:
        return len(self._begin)

    @property
    def rows(self) -> int:
        """Rows of the corpus."""
        return int(self._first[-1])

    def part_range(self, number: int) -> tuple[int, int]:
        """First row of a shard and one past its last."""
        return int(self._first[number]), int(self._first[number + 1])

    def part_of(self, row: int) -> int:
        """The number of the shard with a row of the corpus."""
        return bisect_right(self._first, row) - 1

    def shard(self, number: int) -> Shard:
        """One shard."""
        stop = self._begin[number + 1] if number + 1 < len(self) else len(self._segments)
        lines = self._segments[self._begin[number] : stop, 2:].tolist()
        return Shard(number, int(self._first[number]), tuple(Segment(*line) for line in lines))

    def __iter__(self) -> Iterator[Shard]:
        return map(self.shard, range(len(self)))

    def lines(self) -> Iterator[Any]:
        """The segments of each shard as (n, 9) int64, in the form that the class takes."""
        stops = [*self._begin[1:], len(self._segments)]
        return (self._segments[begin:stop] for begin, stop in zip(self._begin, stops, strict=True))

    def sizes(self) -> Any:
        """(shards,) int64: bytes to read for each shard if they are known for all, else its rows."""
        if not len(self):
            return np.zeros(0, np.int64)
        begin, end = self._segments[:, 6], self._segments[:, 7]
        known = bool(((begin >= 0) & (end > begin)).all())
        return np.add.reduceat(end - begin if known else self._segments[:, 4], self._begin)

    def tasks(self, parts: Sequence[int], most: int) -> list[tuple[int, ...]]:
        """Group part numbers into tasks for one worker each.

        Args:
            parts: part numbers in ascending order.
            most: maximum number of independently readable shards per task. A run stays whole.
        """
        runs = self._segments[self._begin, 1]
        tasks: list[tuple[int, ...]] = []
        for run, members in groupby(parts, key=lambda part: int(runs[part])):
            numbers = list(members)
            size = len(numbers) if run >= 0 else most
            tasks += [tuple(numbers[at : at + size]) for at in range(0, len(numbers), size)]
        return tasks

    def without_inputs_of(self, part: int, parts: Sequence[int]) -> list[int]:
        """The ``parts`` with rows from at least one input that ``part`` has no rows from."""
        inputs = {segment.input for segment in self.shard(part).segments}
        return [other for other in parts if {segment.input for segment in self.shard(other).segments} - inputs]

    def checkpoints(self, inputs: int) -> list[list[Checkpoint]]:
        """For each input, the positions where reading can start; empty if it is always read from its beginning."""
        found: list[list[Checkpoint]] = [[] for _ in range(inputs)]
        known = self._segments[self._segments[:, 6] >= 0]
        for _, _, input, start, _, skip, offset, _, line in known.tolist():
            checkpoint = (start - skip, offset, line)
            if not found[input] or found[input][-1] != checkpoint:
                found[input].append(checkpoint)
        return found

    def inputs_of_parts(self) -> Any:
        """(n, 3) int64, one line per segment: input, first row of the corpus, rows."""
        rows = self._segments[:, 4]
        first = np.cumsum(rows) - rows
        return np.stack([self._segments[:, 2], first, rows], 1)

    def to_bytes(self) -> bytes:
        """Serialise the plan as a Parquet file."""
        import pyarrow as pa

        table = pa.table({name: self._segments[:, at] for at, name in enumerate(_COLUMNS)})
        return sealed_bytes(table, compression="zstd")

    @staticmethod
    def from_bytes(content: bytes, name: str, *, needs_seal: bool = False) -> ShardPlan:
        """Read what :meth:`to_bytes` wrote, and check that it is a plan.

        Args:
            content: the file.
            name: its name in messages.
            needs_seal: refuse a plan without checksums, as earlier releases wrote it.

        Raises:
            StoreError: it is damaged; names the field that is wrong.
        """
        import pyarrow as pa

        try:
            table = open_sealed(io.BytesIO(content), needs_seal=needs_seal).table()
            segments = np.stack([_integers(table, column) for column in _COLUMNS], 1)
            _check_segments(segments)
        except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise _damaged(name, reason) from error
        return ShardPlan(segments)

    def check_inputs(self, rows: Sequence[int], name: str) -> None:
        """Check that the plan has every row of every input once, in order.

        Args:
            rows: number of rows of each input.
            name: the plan's name in messages.

        Raises:
            StoreError: it has not; names the field.
        """
        inputs, starts, counts = (self._segments[:, _COLUMNS.index(field)] for field in ("input", "start", "rows"))
        if len(inputs) and (inputs.max() >= len(rows) or (np.diff(inputs) < 0).any()):
            raise _damaged(name, f"input: the manifest has {len(rows)}, in another order")
        # Where the rows of an input before each segment end: the next one must start there.
        before = np.cumsum(counts) - counts
        first = np.cumsum(rows, dtype=np.int64) - np.asarray(rows, np.int64)
        wrong: Any = np.flatnonzero(starts != before - first[inputs]) if len(inputs) else ()
        if len(wrong):
            at = int(wrong[0])
            raise _damaged(name, f"start: {starts[at]} in line {at} does not follow the rows before it")

    @staticmethod
    def uniform(rows: int, part_rows: int) -> ShardPlan:
        """Rows of one unnamed input, cut every ``part_rows``."""
        starts = np.arange(0, rows, part_rows, dtype=np.int64)
        segments = np.zeros((len(starts), len(_COLUMNS)), np.int64)
        segments[:, 0] = np.arange(len(starts))
        segments[:, (1, 6, 7)] = -1
        segments[:, 3] = starts
        segments[:, 4] = np.minimum(part_rows, rows - starts)
        return ShardPlan(segments)


_MOST = 1 << 60
"""Bound of every number of a plan, so that sums of them stay within 64 bits."""

_LEAST = {"run": -1, "offset": -1, "end": -1, "rows": 1}
"""Smallest value of a field; 0 for the others."""


def _integers(table: Any, field: str) -> Any:
    import pyarrow as pa

    column = table.column(field)
    if column.type != pa.int64() or column.null_count:
        raise ValueError(f"{field}: it must hold whole numbers of 64 bits, got {column.type}")
    return column.to_numpy()


def _check_segments(segments: Any) -> None:
    """Check the numbers of a plan against each other. Raises ValueError: names the field and its line."""
    for at, field in enumerate(_COLUMNS):
        column = segments[:, at]
        wrong = np.flatnonzero((column < _LEAST.get(field, 0)) | (column > _MOST))
        if len(wrong):
            raise ValueError(f"{field}: {column[wrong[0]]} in line {wrong[0]} is out of range")
    if len(segments) and float(segments[:, _COLUMNS.index("rows")].sum(dtype=np.float64)) > _MOST:
        raise ValueError("rows: their sum is out of range")
    shards = segments[:, 0]
    steps = np.diff(shards, prepend=-1)
    wrong = np.flatnonzero((steps < 0) | (steps > 1))
    if len(wrong) or (len(shards) and shards[0] != 0):
        at = int(wrong[0]) if len(wrong) else 0
        raise ValueError(f"shard: {shards[at]} in line {at} does not follow the shard before it")


def _damaged(name: str, reason: str) -> StoreError:
    return StoreError(f"{name} is damaged ({reason}); restore it from a copy, or score again with --overwrite")


def plan_shards(corpus: Corpus, part_rows: int) -> ShardPlan:
    """Cut a corpus into shards of about ``part_rows`` rows, by the rules in the module's docstring.

    It reads no file: the opened corpus has all information.
    """
    cutter = _Cutter(part_rows)
    for number, source in enumerate(corpus.sources):
        cutter.add(number, source)
    return ShardPlan(np.array(cutter.lines, np.int64).reshape(-1, len(_COLUMNS)))


class _Cutter:
    """Gathers segments into shards."""

    def __init__(self, part_rows: int) -> None:
        self._part_rows = part_rows
        self._shard, self._filled = 0, 0
        self._runs = 0
        self.lines: list[tuple[int, ...]] = []

    def add(self, input: int, source: Source) -> None:
        rows = source.rows
        if rows and self._filled + rows <= self._part_rows:
            self._put(input, source, 0, rows, -1)
            return
        self._close()
        groups = source.row_groups()
        if groups is None:
            anywhere = source.checkpoint(0) is not None or source.reads_anywhere
            run = -1 if anywhere or rows <= self._part_rows else self._new_run()
            self._cut(input, source, 0, rows, run)
            return
        start = 0
        for group in groups:
            if self._filled + group > self._part_rows:
                self._close()
            if group > self._part_rows:
                self._cut(input, source, start, group, self._new_run())
                self._close()
            elif group:
                self._put(input, source, start, group, -1)
            start += group

    def _cut(self, input: int, source: Source, start: int, rows: int, run: int) -> None:
        for begin in range(start, start + rows, self._part_rows):
            self._close()
            self._put(input, source, begin, min(self._part_rows, start + rows - begin), run)

    def _put(self, input: int, source: Source, start: int, rows: int, run: int) -> None:
        last = self.lines[-1] if self._filled else None
        if last is not None and last[2] == input and last[3] + last[4] == start and last[6] < 0:
            self.lines[-1] = (*last[:4], last[4] + rows, *last[5:])  # the next row group of the same file
        else:
            place = source.checkpoint(start)
            where = (0, -1, -1, 0)
            if place is not None:
                row, offset, line = place
                where = (start - row, offset, source.checkpoint_after(start + rows), line)
            self.lines.append((self._shard, run, input, start, rows, *where))
        self._filled += rows

    def _close(self) -> None:
        if self._filled:
            self._shard, self._filled = self._shard + 1, 0

    def _new_run(self) -> int:
        self._runs += 1
        return self._runs - 1


def default_part_rows(rows: int) -> int:
    """Default rows per part: 1,024, and up to 16,384 so that a folder has at most some thousands of parts."""
    size = PART_ROWS
    while size < 16384 and rows > size * 4096:
        size *= 2
    return size


__all__ = ["PART_ROWS", "Segment", "Shard", "ShardPlan", "default_part_rows", "plan_shards"]
