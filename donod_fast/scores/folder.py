"""The scores folder: ``manifest.json``, ``plan.parquet`` and ``part-*.parquet``; each part is complete or absent.

If it records the losses of tokens, there are also files ``losses-*.parquet`` (``loss_files.py``).

Part k holds the rows of shard k of the folder's plan (``shards.py``). The manifest records the settings that the folder
was made with; a run with other settings is refused. A process that scores into a folder holds its lock
(``system/locking.py``). The folder is on a disk or on an object store (``system/storage.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.shards import ShardPlan
from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.scores.columns import Column
from donod_fast.scores.folded import SUMMARIES
from donod_fast.scores.loss_files import LOSS_FILES
from donod_fast.scores.manifest import MANIFEST, TOKEN_LOSSES, VERSION, differences, manifest_bytes, read_manifest
from donod_fast.scores.part_store import PARTS, PartStore, content_digest, plan_entry
from donod_fast.scores.problems import PROBLEM_FILES, Problem, add_problem, read_problems
from donod_fast.scores.signals import SignalEntry, joined
from donod_fast.scores.task_marks import TASK_MARKS
from donod_fast.system.files import remove
from donod_fast.system.locking import LOCK, locked
from donod_fast.system.storage import Storage, open_storage

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.data.reading.source import Checkpoint

PLAN = "plan.parquet"


class ScoresFolder(PartStore):
    """A scores folder that has a manifest.

    Attributes:
        storage: location of the folder.
        manifest: settings that it was made with (see ``open_or_create``).
    """

    def __init__(self, place: Path | str | Storage, manifest: Mapping[str, Any]) -> None:
        super().__init__(open_storage(place), manifest)

    @staticmethod
    def open(place: Path | str | Storage) -> ScoresFolder:
        """Open an existing folder, given its path, its URL or its storage.

        Raises:
            StoreError: the folder holds no scores, or its manifest is damaged or has another version.
        """
        storage = open_storage(place)
        name = str(place) if isinstance(place, Path | str) else place.name
        return ScoresFolder(storage, read_manifest(storage, name))

    @staticmethod
    def open_or_create(
        place: Path | str | Storage,
        manifest: Mapping[str, Any],
        plan: ShardPlan | None = None,
        *,
        overwrite: bool = False,
        shared: bool = False,
    ) -> ScoresFolder:
        """Open the folder if it was made with the same settings, or start it with this manifest and plan.

        With ``overwrite`` existing scores are removed first. ``manifest`` holds ``input``, ``model``, ``update``,
        ``masks``, ``head``, ``part_rows`` and any other entries worth recording. Without a plan, part k holds the rows
        of the input from k · part_rows on. With ``shared`` other tasks of an array may open the folder at this moment;
        on a disk the caller keeps them away (``system.task_locks.opening``).

        Raises:
            SettingsMismatchError: the folder was made with other settings; names each difference.
            StoreError: the folder cannot be read or written.
        """
        storage = open_storage(place)
        manifest = {"version": VERSION, **manifest}
        content = b"" if plan is None else plan.to_bytes()
        if plan is not None:
            manifest["plan"] = plan_entry(PLAN, plan, content)
        # Convert to JSON and back, to compare what a reader would read.
        wanted = json.loads(json.dumps(manifest))
        if overwrite:
            # The manifest first: if the process is killed here, the rest does not count as a scores folder.
            # The parts last: as long as there is one, the folder is not taken for a new one.
            notes = [SUMMARIES, *storage.names(PROBLEM_FILES), *storage.names(TASK_MARKS)]
            others = [*storage.names("plan*.parquet"), *notes, *storage.names(LOSS_FILES)]
            for old in [MANIFEST, *others, *storage.names(PARTS)]:
                storage.remove(old)
        if storage.exists(MANIFEST):
            folder = ScoresFolder.open(place)
            folder.refuse_other_settings(wanted)
            if plan is not None:
                folder.complete_plan(plan)
            return folder
        if not overwrite and storage.existing(storage.names(PARTS)):
            raise StoreError(f"{storage.name} holds parts but no {MANIFEST}; use another folder, or --overwrite")
        folder = ScoresFolder(storage, wanted)
        storage.make()
        if shared and storage.local is None:
            # The manifest first: its one PUT decides whose settings count. Each process can then write the plan.
            storage.create(MANIFEST, manifest_bytes(wanted, wanted))
            folder = ScoresFolder.open(place)
            folder.refuse_other_settings(wanted)
            if plan is not None:
                folder.complete_plan(plan)
            return folder
        if plan is not None:
            storage.write(PLAN, content)
            folder.__dict__["plan"] = plan
        if storage.local is not None:
            folder.write_manifest(wanted)
        elif not storage.create(MANIFEST, manifest_bytes(wanted, wanted)):  # another process was faster
            folder = ScoresFolder.open(place)
            folder.refuse_other_settings(wanted)
        return folder

    def complete_plan(self, plan: ShardPlan) -> None:
        """Write the plan if its file is missing and this is the one that the manifest names.

        The process that wrote the manifest has not written the plan so far, or was killed before it could. Raises
        StoreError.
        """
        entry = self.manifest.get("plan")
        if entry is None or self.storage.exists(entry["file"]):
            return
        content = plan.to_bytes()
        if entry.get("sha256") == content_digest(content):
            self.storage.write(entry["file"], content)

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

    def add_token_losses(self) -> None:
        """Have the folder record the losses of its tokens; parts without them become missing. Raises StoreError."""
        if not self.losses.wanted:
            self.write_manifest({**self.manifest, TOKEN_LOSSES: True})

    def signal_columns(self) -> tuple[Column, ...]:
        """Columns of the criteria that every part has. Raises StoreError if a part is damaged."""
        entries = self.signals
        if entries:
            there = [summary for summary in self.summaries() if summary is not None]
            entries = tuple(
                one for one in entries if all(part.has_signals({one.name: one.fingerprint}) for part in there)
            )
        return tuple(column for entry in entries for column in entry.columns)

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


__all__ = ["LOCK", "MANIFEST", "ScoresFolder", "differences", "locked", "remove"]
