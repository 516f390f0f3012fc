"""The losses of the tokens of a folder: one file beside each part, for each scored row a list of float32.

A folder has them if its manifest says so (``score --token-losses``). The file of a part is written before the part, so
that a part that exists has its losses; a file whose part is absent counts for nothing and is replaced. Parts are the
same with and without losses. Every file has checksums of all its bytes, and names the part that it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from donod_fast.data.types import Status
from donod_fast.errors import StoreError, UnreachableError
from donod_fast.scores.manifest import TOKEN_LOSSES
from donod_fast.scores.parts import damage
from donod_fast.scores.rows import ScoreRow
from donod_fast.system.sealed_parquet import open_sealed, sealed_bytes
from donod_fast.system.storage import unreadable

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from donod_fast.system.storage import Storage

LOSS_FILES = "losses-*.parquet"
ROW, LOSSES = "row", "losses"
"""The columns: the row's number, and the cross entropy in nats of each of its scored tokens, in order."""

_MARK = b"donod_fast.losses"
_AGAIN = "run `donod-fast score` again to replace it"


class Parts(Protocol):
    """What is used here of a ``PartStore``."""

    storage: Storage
    manifest: Mapping[str, Any]

    @property
    def settings(self) -> str:
        """Hash of the settings that determine the scores."""

    def part_name(self, part: int) -> str:
        """The file name of a part."""

    def part_range(self, part: int) -> tuple[int, int]:
        """First row of a part, and the row after its last."""

    def origin(self, part: int) -> str:
        """Hash of where the rows of a part are from."""


class LossFiles:
    """The files with the losses of a folder's parts.

    Args:
        parts: the parts.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def wanted(self) -> bool:
        """Whether the folder records losses, so that each part needs its file."""
        return bool(self._parts.manifest.get(TOKEN_LOSSES))

    def name(self, part: int) -> str:
        """The file name of a part's losses."""
        return "losses" + self._parts.part_name(part).removeprefix("part")

    def has(self, part: int) -> bool:
        """Whether the file of a part's losses exists."""
        return self._parts.storage.exists(self.name(part))

    def remove(self, part: int) -> None:
        """Delete the file of a part's losses if it exists. Raises StoreError."""
        self._parts.storage.remove(self.name(part))

    def write(self, part: int, losses: Mapping[int, npt.NDArray[np.float32]]) -> None:
        """Write the losses of a part: once this returns, the file survives a crash.

        Args:
            part: number of the part.
            losses: by number of each scored row, in rising order, (scored tokens,) losses.

        Raises:
            StoreError: the file cannot be written.
        """
        self.write_table(part, losses_table(losses))

    def write_table(self, part: int, table: pa.Table) -> None:
        """Like :meth:`write`, for a table as :meth:`read` gives it."""
        marked = table.replace_schema_metadata({_MARK: self._mark(part)})
        content = sealed_bytes(marked, compression="zstd", use_dictionary=False)
        self._parts.storage.write(self.name(part), content)

    def read(self, part: int) -> pa.Table | None:
        """The losses of a part's scored rows: columns ``row`` and ``losses``; None if there is no file.

        Raises:
            StoreError: the file is damaged, or belongs to another part.
        """
        url = self._parts.storage.url(self.name(part))
        try:
            with self._parts.storage.open(self.name(part)) as file, damage(url):
                table = open_sealed(file, needs_seal=True).table()
                table.validate(full=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(self._parts.storage, self.name(part), error) from error
        start, stop = self._parts.part_range(part)
        rows = table.column(ROW).to_numpy() if table.column_names == [ROW, LOSSES] else np.zeros(1, np.int64)
        is_ours = (table.schema.metadata or {}).get(_MARK) == self._mark(part)
        if not is_ours or (np.diff(rows) <= 0).any() or (len(rows) and not start <= rows[0] <= rows[-1] < stop):
            raise StoreError(f"{url} does not hold the losses of rows {start} to {stop - 1} of these scores; {_AGAIN}")
        plain: pa.Table = table.replace_schema_metadata(None)
        return plain

    def are_complete(self, part: int, scores: pa.Table) -> bool:
        """Whether a part has the losses of all of its scored tokens. A file that is damaged or does not fit is removed.

        Args:
            part: number of the part.
            scores: its rows.
        """
        try:
            table = self.read(part)
            fits = table is not None and lengths_of(table) == scored_lengths(scores)
        except UnreachableError:  # it may be intact
            raise
        except StoreError:
            fits = False
        if not fits:
            self.remove(part)
        return fits

    def _mark(self, part: int) -> bytes:
        first, stop = self._parts.part_range(part)
        mark = {"part": part, "first_row": first, "rows": stop - first, "settings": self._parts.settings}
        return json.dumps({**mark, "origin": self._parts.origin(part)}, sort_keys=True).encode()


def losses_table(losses: Mapping[int, npt.NDArray[np.float32]]) -> pa.Table:
    """A table of losses, by number of the row."""
    import pyarrow as pa

    item = pa.field("element", pa.float32(), nullable=False)
    schema = pa.schema([pa.field(ROW, pa.int64(), nullable=False), pa.field(LOSSES, pa.list_(item), nullable=False)])
    offsets = np.cumsum([0, *map(len, losses.values())], dtype=np.int64).astype(np.int32)
    values = np.concatenate([np.zeros(0, np.float32), *losses.values()])
    lists = pa.ListArray.from_arrays(offsets, pa.array(values, pa.float32()), type=pa.list_(item))
    return pa.table([pa.array(list(losses), pa.int64()), lists], schema=schema)


def losses_of_rows(rows: Sequence[ScoreRow]) -> dict[int, npt.NDArray[np.float32]]:
    """The losses of the scored ones of some rows.

    Raises:
        StoreError: a row was scored without them.
    """
    found = {}
    for row in rows:
        if row.status == Status.SCORED:
            if row.token_losses is None:
                raise StoreError(f"row {row.row} was scored without the losses of its tokens, which the folder records")
            found[row.row] = row.token_losses
    return found


def lengths_of(table: pa.Table) -> dict[int, int]:
    """Number of losses by row, of a table as :meth:`LossFiles.read` gives it."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(table.column(LOSSES))
    return dict(zip(table.column(ROW).to_pylist(), lengths.to_pylist(), strict=True))


def scored_lengths(scores: pa.Table) -> dict[int, int]:
    """Number of scored tokens of each scored row of a table of scores."""
    columns = (scores.column(name).to_pylist() for name in ("row", "status", "scored_tokens"))
    return {row: tokens for row, status, tokens in zip(*columns, strict=True) if status == Status.SCORED}


__all__ = [
    "LOSSES",
    "LOSS_FILES",
    "ROW",
    "LossFiles",
    "lengths_of",
    "losses_of_rows",
    "losses_table",
    "scored_lengths",
]
