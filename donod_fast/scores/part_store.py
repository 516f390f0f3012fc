"""The parts of a scores folder: written whole, found, read, verified and summarised.

:class:`donod_fast.scores.folder.ScoresFolder` adds what a folder holds besides: settings, criteria and problems.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from donod_fast.data.shards import ShardPlan
from donod_fast.errors import StoreError, UnreachableError
from donod_fast.scores.folded import KnownSummaries
from donod_fast.scores.gradient_size import GradientSize
from donod_fast.scores.loss_files import LossFiles, losses_of_rows
from donod_fast.scores.manifest import has_unchecked_parts, settings_hash
from donod_fast.scores.part_summary import ColumnSummary, PartSummary, Signals, combined, whole_column
from donod_fast.scores.parts import (
    origin_of,
    part_bytes,
    read_columns,
    read_part,
    read_summary,
    table_bytes,
    without_hashes,
)
from donod_fast.scores.rows import HASH, ScoreRow
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.scores.signals import SignalEntry
from donod_fast.system.storage import Storage, unreadable
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.kernels.topsis import ColumnConstants

PARTS = "part-*.parquet"

_READERS = 16

_T = TypeVar("_T")


def plan_entry(file: str, plan: ShardPlan, content: bytes) -> dict[str, Any]:
    """The section ``plan`` of a manifest.

    Args:
        file: name of the plan's file in the folder.
        plan: the plan.
        content: the file.
    """
    return {"file": file, "parts": len(plan), "sha256": content_digest(content)}


def content_digest(content: bytes) -> str:
    """SHA-256 of a file in hex."""
    return hashlib.sha256(content).hexdigest()


class PartStore:
    """The parts of a folder, and the plan that says which rows are in which part.

    Args:
        storage: location of the folder.
        manifest: the folder's manifest.
    """

    def __init__(self, storage: Storage, manifest: Mapping[str, Any]) -> None:
        self.storage = storage
        self.manifest = manifest
        self.known = KnownSummaries()

    @property
    def name(self) -> str:
        """The folder's path or URL."""
        return self.storage.name

    @cached_property
    def losses(self) -> LossFiles:
        """The losses of the tokens, if the folder records them."""
        return LossFiles(self)

    @cached_property
    def plan(self) -> ShardPlan:
        """The plan: which rows are in which part.

        Raises:
            StoreError: the plan cannot be read.
        """
        entry = self.manifest.get("plan")
        if entry is None:
            return ShardPlan.uniform(int(self.manifest["input"]["rows"]), int(self.manifest["part_rows"]))
        file = self.storage.url(entry["file"])
        try:
            content = self.storage.read(entry["file"])
        except OSError as error:
            if self.storage.local is None and not isinstance(error, FileNotFoundError):
                raise unreadable(self.storage, entry["file"], error) from error
            raise StoreError(f"{file} cannot be read ({error}); score again with --overwrite") from error
        plan = ShardPlan.from_bytes(content, file, needs_seal=self.needs_seal)
        digest = entry.get("sha256")
        is_ours = digest == content_digest(content) or (digest is None and not self.needs_seal)
        if not is_ours or (len(plan), plan.rows) != (entry["parts"], self.rows):
            raise StoreError(f"{file} is not the plan that the manifest was written for; score again with --overwrite")
        inputs = self.manifest["input"].get("inputs")
        if inputs is not None:
            plan.check_inputs([entry["rows"] for entry in inputs], file)
        return plan

    @property
    def needs_seal(self) -> bool:
        """Whether every part has checksums of all its bytes, so that a part without them is damaged."""
        return not has_unchecked_parts(self.manifest)

    @cached_property
    def settings(self) -> str:
        """Hash of the settings that determine the scores."""
        return settings_hash(self.manifest)

    @property
    def carry(self) -> tuple[str, ...]:
        """Columns of the records that are copied into the parts."""
        return tuple(self.manifest.get("carry") or ())

    @property
    def rows(self) -> int:
        """Number of rows of the input."""
        return int(self.manifest["input"]["rows"])

    @property
    def parts(self) -> int:
        """Number of parts of the finished folder."""
        return len(self.plan)

    def part_name(self, part: int) -> str:
        """The file name of a part."""
        generation = int(self.manifest.get("generation") or 0)  # see revising.py
        return f"part-g{generation}-{part:06d}.parquet" if generation else f"part-{part:06d}.parquet"

    def has_part(self, part: int) -> bool:
        """Whether the file of a part exists."""
        return self.storage.exists(self.part_name(part))

    def present(self) -> set[int]:
        """Numbers of the parts whose file exists; each file is asked for where a listing may lag. Raises StoreError."""
        there = self.storage.existing(map(self.part_name, range(self.parts)))
        return {part for part in range(self.parts) if self.part_name(part) in there}

    def part_range(self, part: int) -> tuple[int, int]:
        """First row of a part, and the row after its last."""
        return self.plan.part_range(part)

    def origin(self, part: int) -> str:
        """Hash of where the rows of a part are from."""
        return origin_of(self.plan.shard(part), self.manifest["input"])

    def is_committed(self, part: int, wanted: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Whether a part exists, with the losses of its tokens if the folder records them; its rows are not read.

        Args:
            part: number of the part.
            wanted: criteria that the part must have: fingerprint of the settings by name.

        Raises:
            UnreachableError: the object store refuses or does not answer.
        """
        if not self.has_part(part) or (self.losses.wanted and not self.losses.has(part)):
            return False
        if not wanted:
            return True
        try:
            return self._has(part, wanted)
        except UnreachableError:
            raise
        except StoreError:
            return False

    def _has(self, part: int, wanted: Mapping[str, str]) -> bool:
        summary = self.summary(part)
        return summary is not None and summary.has_signals(wanted)

    def write_part(
        self,
        part: int,
        rows: Sequence[ScoreRow],
        signals: Sequence[SignalEntry] = (),
        samples: SampleCounts = SampleCounts(),
        gradient: GradientSize | None = None,
    ) -> None:
        """Commit a part: once this returns, the part survives a crash; until then it does not exist.

        ``signals`` are the criteria whose values the rows contain; ``samples`` counts what was used of the records;
        ``gradient`` is the size of the gradient's entries, if it was measured on the part.
        """
        start, stop = self.part_range(part)
        if [row.row for row in rows] != list(range(start, stop)):
            raise StoreError(f"part {part} must hold rows {start} to {stop - 1} in order, each once")
        content = part_bytes(
            rows, self.plan.shard(part), self.settings, self.carry, signals, samples, self.origin(part), gradient
        )
        if self.losses.wanted:  # first: a part that exists has its losses
            self.losses.write(part, losses_of_rows(rows))
        self.storage.write(self.part_name(part), content)

    def write_table(
        self,
        part: int,
        table: pa.Table,
        signals: Signals | None = None,
        samples: SampleCounts = SampleCounts(),
        gradient: GradientSize | None = None,
    ) -> None:
        """Like :meth:`write_part`, but the rows are given as a table; ``signals`` as in the part's summary.

        The losses of the tokens, if the folder records them, must be there already.
        """
        shard, origin = self.plan.shard(part), self.origin(part)
        content = table_bytes(table, shard, self.settings, signals, samples, origin, gradient)
        self.storage.write(self.part_name(part), content)

    def missing_parts(
        self, wanted: Mapping[str, str] = MappingProxyType({}), among: Sequence[int] | None = None
    ) -> list[int]:
        """Parts that are absent, lack a ``wanted`` criterion or the losses that the folder records, or are damaged.

        A damaged file is removed.

        Args:
            wanted: criteria that every part must have: fingerprint of the settings by name.
            among: the parts to look at; None for all.

        Raises:
            UnreachableError: the object store refuses or does not answer; nothing is removed for that.
        """
        there = set(self.storage.names(PARTS)) if self.storage.local is not None else None  # else each is read

        def is_missing(part: int) -> bool:
            if there is not None and self.part_name(part) not in there:
                return True
            try:
                table = self.read_part(part)
                if table is None:
                    return True
                lacks_criteria = bool(wanted and not self._has(part, wanted))
            except UnreachableError:  # it may be intact
                raise
            except StoreError:
                self.storage.remove(self.part_name(part))
                return True
            # Checked in any case: a run that adds criteria keeps the losses that are there.
            lacks_losses = self.losses.wanted and not self.losses.are_complete(part, table)
            return lacks_criteria or lacks_losses

        parts = range(self.parts) if among is None else among
        return [part for part, missing in zip(parts, self._of_each(is_missing, parts), strict=True) if missing]

    def part_files(self) -> list[str]:
        """Paths or URLs of all parts, in order.

        Raises:
            StoreError: the run is unfinished.
        """
        self._refuse_unfinished(len(self.present()))
        return [self.storage.url(self.part_name(part)) for part in range(self.parts)]

    def summary(self, part: int) -> PartSummary | None:
        """Summary in the footer of a part; None if the part is absent.

        Raises:
            StoreError: the part is damaged.
        """
        return self._read(part, read_summary)

    def summaries(self) -> list[PartSummary | None]:
        """Summaries of all parts, in order; None for an absent part. Raises StoreError: a part is damaged."""
        look = self.known.look(self)
        for error in look.damaged.values():
            raise error
        return look.summaries

    def column_summaries(self, *, sums: bool = False) -> tuple[ColumnSummary, ColumnSummary]:
        """Summaries of DON and NOD over all rows, from those of the parts.

        Args:
            sums: with the sums of absolute values, for which the rows of parts of earlier releases are read. Without,
                they may be None.

        Raises:
            StoreError: the run is unfinished or a part is damaged.
        """
        found = [summary for summary in self.summaries() if summary is not None]
        self._refuse_unfinished(len(found))
        columns = [(summary.don, summary.nod) for summary in found]
        if sums:
            columns = [
                (don, nod) if don.absolutes is not None and nod.absolutes is not None else self._summarised(part)
                for part, (don, nod) in enumerate(columns)
            ]
        return whole_column(don for don, _ in columns), whole_column(nod for _, nod in columns)

    def constants(self, *, sums: bool = False) -> tuple[ColumnConstants, ColumnConstants]:
        """Constants of DON and NOD for TOPSIS over all rows; see :meth:`column_summaries`, of which sums may be NaN.

        Raises:
            StoreError: the run is unfinished or a part is damaged.
        """
        don, nod = self.column_summaries(sums=sums)
        return combined([don]), combined([nod])

    def _summarised(self, part: int) -> tuple[ColumnSummary, ColumnSummary]:
        table = self.read_columns(part, ["don", "nod"])
        if table is None:
            raise StoreError(f"{self.part_name(part)} is gone; run `donod-fast score` again to replace it")
        don, nod = (ColumnSummary.of(table.column(name).to_numpy()) for name in ("don", "nod"))
        return don, nod

    def counts(self) -> Counter[str]:
        """Rows by status over the existing parts."""
        counts: Counter[str] = Counter()
        for summary in self.summaries():
            if summary is not None:
                counts.update(summary.counts)
        return counts

    def sample_counts(self) -> SampleCounts:
        """What was used of the records, over the existing parts."""
        found = (summary.samples for summary in self.summaries() if summary is not None)
        return sum(found, SampleCounts())

    def table(self) -> pa.Table:
        """All rows in input order, with the columns that are in every part.

        Raises:
            StoreError: the run is unfinished or a part is damaged.
        """
        import pyarrow as pa

        there = [table for table in map(self.read_part, range(self.parts)) if table is not None]
        self._refuse_unfinished(len(there))
        names = [name for name in there[0].column_names if all(name in table.column_names for table in there)]
        return pa.concat_tables([table.select(names) for table in there])

    def read_part(self, part: int, *, hashes: bool = False) -> pa.Table | None:
        """The rows of a part; None if it is absent.

        Args:
            part: number of the part.
            hashes: with the hashes of the records as the last column, if the part has them.

        Raises:
            StoreError: the part is damaged.
        """
        table = self._read(part, read_part, self.carry)
        return table if table is None or hashes else without_hashes(table)

    def read_columns(self, part: int, columns: Sequence[str]) -> pa.Table | None:
        """Those of some columns that a part has; None if the part is absent. Only they and the summary are verified.

        Raises:
            StoreError: the part is damaged.
        """
        return self._read(part, read_columns, columns)

    def record_hashes(self, part: int) -> list[bytes | None] | None:
        """The hashes of the records of a part; None if it is absent, or has none (an earlier release wrote it).

        Raises:
            StoreError: the part is damaged.
        """
        table = self.read_columns(part, ["row", HASH])
        if table is None or HASH not in table.column_names:
            return None
        hashes: list[bytes | None] = table.column(HASH).to_pylist()
        return hashes

    def _read(self, part: int, read: Callable[..., _T], *wanted: Any) -> _T | None:
        """What a reader of :mod:`donod_fast.scores.parts` makes of a part's file; None if there is none."""
        name = self.part_name(part)
        url = self.storage.url(name)
        checks = {"origin": self.origin(part), "needs_seal": self.needs_seal}
        try:
            with self.storage.open(name) as file:
                return read(file, url, part, self.part_range(part), self.settings, *wanted, **checks)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(self.storage, name, error) from error

    def _of_each(self, look: Callable[[int], _T], among: Sequence[int] | None = None) -> list[_T]:
        parts = range(self.parts) if among is None else among
        if self.storage.local is not None or len(parts) < 2:
            return [look(part) for part in parts]
        with ThreadPoolExecutor(
            _READERS
        ) as pool:  # an object store answers slowly, but answers many requests in parallel
            return list(pool.map(look, parts))

    def _refuse_unfinished(self, there: int) -> None:
        if there < self.parts:
            raise StoreError(
                f"{self.name} is unfinished: {there} of {plural(self.parts, 'part')} committed; "
                "run `donod-fast score` again with the same settings to finish it"
            )


__all__ = ["PARTS", "PartStore", "content_digest", "plan_entry"]
