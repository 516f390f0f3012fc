"""Columns of the parts → scored rows, in constant memory.

Arrow reads a few parts at the same time and verifies page checksums, which find flipped bits. Rows are returned in
order, a few hundred thousand at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from donod_fast.errors import InputError, StoreError
from donod_fast.scores.rows import schema
from donod_fast.selection.ranking import number_names, rescale_to_lr

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.out_of_core.groups import Groups

_BATCH_ROWS = 1 << 19
_READERS, _READERS_OF_OBJECTS = 2, 16


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Scored rows: (n,) each.

    Attributes:
        row: int64, in rising order.
        group: int32.
        don: float64.
        nod: float64.
        column: float64, the further column; None if there is none.
    """

    row: Any
    group: Any
    don: Tensor
    nod: Tensor
    column: Tensor | None


def scored_rows(
    folder: ScoresFolder,
    groups: Groups,
    *,
    lr: float | None = None,
    column: str | None = None,
    seen: Callable[[Any], None] | None = None,
) -> Iterator[ScoredRows]:
    """Yield the rows that have DON and NOD (and a value in ``column``, if given), a few hundred thousand at a time.

    Args:
        folder: a finished folder.
        groups: the groups of the rows.
        lr: compute DON and NOD at this learning rate; None for the folder's.
        column: a further number column to read; DON and NOD are allowed.
        seen: called with the group numbers of all rows of each batch, scored or not.

    Raises:
        StoreError: a part is missing or damaged.
        InputError: an infinite score, or a row with only one of the two scores.
    """
    pair = ["don", "nod"] if lr is None else ["weight_dot_update", "update_norm"]
    named = [] if column in (None, "don", "nod") else [column]
    grouped = [] if groups.column is None else [groups.column]
    wanted = list(dict.fromkeys(["row", *pair, *named, *grouped]))
    for batch in read_batches(folder, wanted):
        row = batch.column("row").to_numpy()
        numbers = groups.numbers(row, None if groups.column is None else batch.column(groups.column))
        if seen is not None:
            seen(numbers)
        # Copied: Arrow's memory is read-only, and PyTorch needs writable memory.
        first, second = (torch.from_numpy(batch.column(name).to_numpy().copy()) for name in pair)
        don, nod = (first, second) if lr is None else rescale_to_lr(first, second, weight_norm(folder), lr)
        half = (first.isnan() != second.isnan()).nonzero()
        if len(half):
            raise InputError(
                f"row {row[half[0, 0]]} has only one of {pair[0]} and {pair[1]}, which `donod-fast score` does not "
                "write; rank in memory (--engine memory, without --by)"
            )
        found = {"don": don, "nod": nod}
        if column is not None and column not in found:
            found[column] = torch.from_numpy(batch.column(column).to_numpy().copy()).double()
        there = torch.ones(len(row), dtype=torch.bool)
        for values in found.values():
            there &= ~values.isnan()
        for name, values in found.items():
            if (infinite := (values.isinf() & there)).any():
                raise InputError(f"column {name} has an infinite score, at row {row[infinite.numpy()][0]}")
        kept = there.numpy()
        # + 0.0: no −0.0, as in ranking.rank
        yield ScoredRows(
            row[kept],
            numbers[kept],
            don[there] + 0.0,
            nod[there] + 0.0,
            None if column is None else found[column][there] + 0.0,
        )


def number_columns(folder: ScoresFolder) -> list[str]:
    """Columns of numbers, without ``row``, that every part has. Raises StoreError: a part is damaged."""
    return number_names(schema(folder.carry, folder.signal_columns()))


def weight_norm(folder: ScoresFolder) -> float:
    """‖W‖ of the scoring model."""
    return float(folder.manifest["model"]["weight_norm"])


def read_columns(folder: ScoresFolder, part: int, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a part, including ``row``, and verify checksums.

    Raises:
        StoreError: the part is missing or damaged, or lacks one of the columns.
    """
    name = folder.storage.url(folder.part_name(part))
    again = "run `donod-fast score` again to replace it"
    table = folder.read_columns(part, columns)
    if table is None:
        raise StoreError(f"{name} is gone; {again}")
    start, stop = folder.part_range(part)
    if set(table.column_names) != set(columns) or not np.array_equal(
        table.column("row").to_numpy(), np.arange(start, stop)
    ):
        raise StoreError(f"{name} does not hold the scores of rows {start} to {stop - 1}; {again}")
    return table


def read_narrow(folder: ScoresFolder, columns: Sequence[str]) -> pa.Table:
    """Read some columns of all rows, including ``row``, in input order, and no other column.

    Raises:
        StoreError: the folder is unfinished, a part is damaged or lacks one of the columns.
    """
    import pyarrow as pa

    folder.part_files()  # refuses an unfinished folder
    return pa.concat_tables(_tables(folder, columns))


def read_batches(folder: ScoresFolder, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield some columns of all rows in input order, a few hundred thousand rows at a time.

    Raises:
        StoreError: a part is missing or damaged.
    """
    return _batches(_tables(folder, columns))


def _tables(folder: ScoresFolder, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield all parts in order; some are read ahead."""
    readers = _READERS if folder.storage.local is not None else _READERS_OF_OBJECTS
    with ThreadPoolExecutor(readers) as pool:
        parts = iter(range(folder.parts))
        ahead: deque[Future[pa.Table]] = deque()

        def begin(parts: Iterable[int]) -> None:
            ahead.extend(pool.submit(read_columns, folder, part, columns) for part in parts)

        begin(islice(parts, readers))
        try:
            while ahead:
                table = ahead.popleft().result()
                begin(islice(parts, 1))
                yield table
        finally:
            for future in ahead:
                future.cancel()


def _batches(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join tables until they have a few hundred thousand rows."""
    import pyarrow as pa

    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        if rows >= _BATCH_ROWS:
            yield pa.concat_tables(held)
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held)


__all__ = ["ScoredRows", "number_columns", "read_batches", "read_columns", "read_narrow", "scored_rows", "weight_norm"]
