"""The scores folder: ``manifest.json``, ``plan.parquet`` and ``part-*.parquet``; each part is complete or absent.

Part k holds the rows of shard k of the folder's plan (``shards.py``). The manifest records the settings that the folder
was made with; a run with other settings is refused. A process that scores into a folder holds its lock
(``system/locking.py``). The folder is on a disk or on an object store (``system/storage.py``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from donod_fast.data.shards import ShardPlan
from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.scores.columns import Column
from donod_fast.scores.manifest import (
    MANIFEST,
    VERSION,
    differences,
    has_unchecked_parts,
    manifest_bytes,
    read_manifest,
    settings_hash,
)
from donod_fast.scores.parts import (
    PartSummary,
    Signals,
    combined,
    damage,
    part_bytes,
    read_part,
    read_summary,
    table_bytes,
    without_hashes,
)
from donod_fast.scores.problems import PROBLEMS, Problem, add_problem, read_problems
from donod_fast.scores.rows import HASH, ScoreRow
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.scores.signals import SignalEntry, joined
from donod_fast.system.files import remove
from donod_fast.system.locking import LOCK, locked
from donod_fast.system.sealed_parquet import open_sealed
from donod_fast.system.storage import Storage, open_storage
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.data.reading import Corpus
    from donod_fast.data.reading.source import Checkpoint
    from donod_fast.kernels.topsis import ColumnConstants

PLAN = "plan.parquet"
PARTS = "part-*.parquet"

_READERS = 4

_T = TypeVar("_T")


class ScoresFolder:
    """A scores folder that has a manifest.

    Attributes:
        storage: location of the folder.
        manifest: settings that it was made with (see ``open_or_create``).
    """

    def __init__(self, place: Path | str | Storage, manifest: Mapping[str, Any]) -> None:
        self.storage = open_storage(place) if isinstance(place, (Path, str)) else place
        self.manifest = manifest

    @staticmethod
    def open(place: Path | str) -> ScoresFolder:
        """Open an existing folder, given its path or URL.

        Raises:
            StoreError: the folder holds no scores, or its manifest is damaged or has another version.
        """
        storage = open_storage(place)
        return ScoresFolder(storage, read_manifest(storage, str(place)))

    @staticmethod
    def open_or_create(
        place: Path | str, manifest: Mapping[str, Any], plan: ShardPlan | None = None, *, overwrite: bool = False
    ) -> ScoresFolder:
        """Open the folder if it was made with the same settings, or start it with this manifest and plan.

        With ``overwrite`` existing scores are removed first. ``manifest`` holds ``input``, ``model``, ``update``,
        ``masks``, ``head``, ``part_rows`` and any other entries worth recording. Without a plan, part k holds the rows
        of the input from k · part_rows on.

        Raises:
            SettingsMismatchError: the folder was made with other settings; names each difference.
            StoreError: the folder cannot be read or written.
        """
        storage = open_storage(place)
        manifest = {"version": VERSION, **manifest}
        if plan is not None:
            manifest["plan"] = {"file": PLAN, "parts": len(plan)}
        # Convert to JSON and back, to compare what a reader would read.
        wanted = json.loads(json.dumps(manifest))
        if overwrite:
            # The manifest first: if the process is killed here, the rest does not count as a scores folder.
            for old in [MANIFEST, *storage.names("plan*.parquet"), PROBLEMS, *storage.names(PARTS)]:
                storage.remove(old)
        if storage.exists(MANIFEST):
            folder = ScoresFolder.open(place)
            folder.refuse_other_settings(wanted)
            return folder
        if storage.names(PARTS):
            raise StoreError(f"{place} holds parts but no {MANIFEST}; use another folder, or --overwrite")
        folder = ScoresFolder(storage, wanted)
        storage.make()
        if plan is not None:
            storage.write(PLAN, plan.to_bytes())
            folder.__dict__["plan"] = plan
        folder.write_manifest(wanted)
        return folder

    def refuse_other_settings(self, wanted: Mapping[str, Any]) -> None:
        """Compare the manifest with the one that a run would write.

        Raises:
            SettingsMismatchError: they differ in a setting that determines the numbers; names each difference.
        """
        unlike = differences(self.manifest, wanted)
        if unlike:
            raise SettingsMismatchError(
                f"{self.name} holds scores made with other settings:\n  "
                + "\n  ".join(unlike)
                + "\nUse another --out folder, the same settings, or --overwrite to drop the old scores."
            )

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest atomically. Raises StoreError."""
        self.storage.write(MANIFEST, manifest_bytes(manifest, self.manifest))
        if manifest.get("plan") != self.manifest.get("plan"):
            self.__dict__.pop("plan", None)  # the cached one
        self.manifest = manifest

    @property
    def path(self) -> Path:
        """Path of a folder on a disk. Raises StoreError if it is on an object store."""
        if self.storage.local is None:
            raise StoreError(f"{self.storage.name} is not on a disk")
        return self.storage.local

    @property
    def name(self) -> str:
        """The folder's path or URL."""
        return self.storage.name

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
            plan = ShardPlan.from_bytes(self.storage.read(entry["file"]), file, needs_seal=self.needs_seal)
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error}); score again with --overwrite") from error
        if (len(plan), plan.rows) != (entry["parts"], self.rows):
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
    def signals(self) -> tuple[SignalEntry, ...]:
        """Criteria of the folder; some parts may not have their columns yet."""
        return tuple(map(SignalEntry.from_json, self.manifest.get("signals") or ()))

    def add_signals(self, entries: Sequence[SignalEntry]) -> None:
        """Add criteria to the manifest; their columns are written with the parts.

        Raises:
            SettingsMismatchError: the folder has one of them with other settings.
            StoreError: the manifest cannot be written.
        """
        signals = joined(self.signals, entries, self.name)
        if signals != self.signals:
            self.write_manifest({**self.manifest, "signals": [entry.as_dict() for entry in signals]})

    def signal_columns(self) -> tuple[Column, ...]:
        """Columns of the criteria that every part has. Raises StoreError if a part is damaged."""
        entries = self.signals
        if entries:
            there = [summary for summary in self.summaries() if summary is not None]
            entries = tuple(
                one for one in entries if all(part.has_signals({one.name: one.fingerprint}) for part in there)
            )
        return tuple(column for entry in entries for column in entry.columns)

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

    def part_range(self, part: int) -> tuple[int, int]:
        """First row of a part, and the row after its last."""
        return self.plan.part_range(part)

    def is_committed(self, part: int, wanted: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Whether a part exists; its rows are not read.

        Args:
            part: number of the part.
            wanted: criteria that the part must have: fingerprint of the settings by name.
        """
        if not self.has_part(part):
            return False
        if not wanted:
            return True
        try:
            return self._has(part, wanted)
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
    ) -> None:
        """Commit a part: once this returns, the part survives a crash; until then it does not exist.

        ``signals`` are the criteria whose values the rows contain; ``samples`` counts what was used of the records.
        """
        start, stop = self.part_range(part)
        if [row.row for row in rows] != list(range(start, stop)):
            raise StoreError(f"part {part} must hold rows {start} to {stop - 1} in order, each once")
        content = part_bytes(rows, self.plan.shard(part), self.settings, self.carry, signals, samples)
        self.storage.write(self.part_name(part), content)

    def write_table(
        self, part: int, table: pa.Table, signals: Signals | None = None, samples: SampleCounts = SampleCounts()
    ) -> None:
        """Like :meth:`write_part`, but the rows are given as a table; ``signals`` as in the part's summary."""
        content = table_bytes(table, self.plan.shard(part), self.settings, signals, samples)
        self.storage.write(self.part_name(part), content)

    def missing_parts(self, wanted: Mapping[str, str] = MappingProxyType({})) -> list[int]:
        """Parts that are absent, lack a ``wanted`` criterion, or are damaged (a damaged file is removed).

        Args:
            wanted: criteria that every part must have: fingerprint of the settings by name.
        """
        there = set(self.storage.names(PARTS))

        def is_missing(part: int) -> bool:
            if self.part_name(part) not in there:
                return True
            try:
                return self.read_part(part) is None or bool(wanted and not self._has(part, wanted))
            except StoreError:
                self.storage.remove(self.part_name(part))
                return True

        return [part for part, missing in enumerate(self._of_each(is_missing)) if missing]

    def part_files(self) -> list[str]:
        """Paths or URLs of all parts, in order.

        Raises:
            StoreError: the run is unfinished.
        """
        there = set(self.storage.names(PARTS))
        names = [self.part_name(part) for part in range(self.parts)]
        self._refuse_unfinished(sum(name in there for name in names))
        return [self.storage.url(name) for name in names]

    def summary(self, part: int) -> PartSummary | None:
        """Summary in the footer of a part; None if the part is absent.

        Raises:
            StoreError: the part is damaged.
        """
        name = self.part_name(part)
        try:
            with self.storage.open(name) as file:
                return read_summary(
                    file,
                    self.storage.url(name),
                    part,
                    self.part_range(part),
                    self.settings,
                    needs_seal=self.needs_seal,
                )
        except FileNotFoundError:
            return None

    def summaries(self) -> list[PartSummary | None]:
        """Summaries of all parts, in order. Raises StoreError."""
        there = set(self.storage.names(PARTS))
        return self._of_each(lambda part: self.summary(part) if self.part_name(part) in there else None)

    def constants(self) -> tuple[ColumnConstants, ColumnConstants]:
        """Constants of DON and NOD for TOPSIS over all rows, computed from the summaries only.

        Raises:
            StoreError: the run is unfinished or a part is damaged.
        """
        found = [summary for summary in self.summaries() if summary is not None]
        self._refuse_unfinished(len(found))
        return combined(summary.don for summary in found), combined(summary.nod for summary in found)

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
        name = self.part_name(part)
        try:
            with self.storage.open(name) as file:
                table = read_part(
                    file,
                    self.storage.url(name),
                    part,
                    self.part_range(part),
                    self.settings,
                    self.carry,
                    needs_seal=self.needs_seal,
                )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.storage.url(name)} cannot be read ({error})") from error
        return table if hashes else without_hashes(table)

    def record_hashes(self, part: int) -> list[bytes | None] | None:
        """The hashes of the records of a part; None if it is absent, or has none (an earlier release wrote it).

        Raises:
            StoreError: the part is damaged.
        """
        name = self.part_name(part)
        try:
            with self.storage.open(name) as file, damage(self.storage.url(name)):
                sealed = open_sealed(file, needs_seal=self.needs_seal)
                if HASH not in sealed.metadata.schema.names:
                    return None
                hashes: list[bytes | None] = sealed.table([HASH]).column(HASH).to_pylist()
        except FileNotFoundError:
            return None
        start, stop = self.part_range(part)
        if len(hashes) != stop - start:
            raise StoreError(f"{self.storage.url(name)} does not hold the scores of rows {start} to {stop - 1}")
        return hashes

    def corpus(self) -> Corpus:
        """The corpus of the folder. Its files are not checked here, but when they are read.

        Raises:
            CorpusError: the rows were given from Python.
        """
        from donod_fast.data.reading.corpus import restored_corpus

        return restored_corpus(self.manifest["input"], self._checkpoints())

    def reopened(self) -> Corpus:
        """The corpus of the folder, after a check that it is unchanged: by size and time stamp, else by content.

        Each record that is read from it is compared with the hash of the record that was scored.

        Raises:
            CorpusError: an input is gone or has changed, or the rows were given from Python.
        """
        from donod_fast.data.reading import reopen_corpus
        from donod_fast.scores.held import held

        return held(reopen_corpus(self.manifest["input"], self._checkpoints()), self)

    def _checkpoints(self) -> list[list[Checkpoint]]:
        """For each input, the positions where reading can start. Raises StoreError: the manifest names no inputs."""
        inputs = self.manifest["input"].get("inputs")
        if inputs is None:
            raise StoreError(f"{self.storage.url(MANIFEST)} names no inputs (input.inputs: it is missing)")
        return self.plan.checkpoints(len(inputs))

    def note_problem(self, part: int | None, text: str) -> None:
        """Record a problem for ``donod-fast status``. Only the process that holds the folder may call this.

        Raises:
            StoreError: the problem cannot be written.
        """
        add_problem(self.storage, part, text)

    def problems(self) -> list[Problem]:
        """Problems so far, oldest first; empty if they cannot be read."""
        return read_problems(self.storage)

    def _of_each(self, look: Callable[[int], _T]) -> list[_T]:
        if self.storage.local is not None or self.parts < 2:
            return [look(part) for part in range(self.parts)]
        with ThreadPoolExecutor(
            _READERS
        ) as pool:  # an object store answers slowly, but answers many requests in parallel
            return list(pool.map(look, range(self.parts)))

    def _refuse_unfinished(self, there: int) -> None:
        if there < self.parts:
            raise StoreError(
                f"{self.name} is unfinished: {there} of {plural(self.parts, 'part')} committed; "
                "run `donod-fast score` again with the same settings to finish it"
            )


__all__ = ["LOCK", "MANIFEST", "ScoresFolder", "differences", "locked", "remove"]
