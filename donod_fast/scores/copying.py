"""Copy a scores folder as it is: from memory to a disk, or from one place to another."""

from __future__ import annotations

from pathlib import Path

from donod_fast.errors import StoreError
from donod_fast.scores.folder import MANIFEST, ScoresFolder, locked
from donod_fast.scores.loss_files import LOSS_FILES
from donod_fast.scores.part_store import PARTS
from donod_fast.scores.problems import PROBLEM_FILES, PROBLEMS
from donod_fast.system.storage import open_storage

WARM_STATE = "warm-state.parquet"
"""The state of ``adamw-warm``, ``scoring.warm_state.FILE``."""

_FILES = ("plan*.parquet", PARTS, LOSS_FILES, WARM_STATE, PROBLEM_FILES)
"""Files of a scores folder besides its manifest."""


def copy_folder(folder: ScoresFolder, place: Path | str, *, overwrite: bool = False) -> ScoresFolder:
    """Write the manifest, the plan and the parts of a folder to another place, byte for byte.

    The manifest is written last: without it, what is there does not count as scores.

    Args:
        folder: what to copy; it may be unfinished.
        place: path or URL of the new folder.
        overwrite: drop scores that are there.

    Raises:
        StoreError: scores are there already, or the new folder cannot be written or is in use.
    """
    storage = open_storage(place)
    if storage.url(MANIFEST) == folder.storage.url(MANIFEST):
        raise StoreError(f"{place} is the folder that the scores are in; name another one")
    if storage.exists(MANIFEST) and not overwrite:
        raise StoreError(f"{place} holds scores already; name another folder, or give overwrite=True")
    with locked(place):
        names = _names(folder)
        storage.remove(MANIFEST)
        for old in [name for pattern in _FILES for name in storage.names(pattern)]:
            storage.remove(old)
        storage.make()
        try:
            for name in [*names, MANIFEST]:
                storage.write(name, folder.storage.read(name))
        except OSError as error:
            raise StoreError(f"{folder.name} cannot be copied to {place} ({error})") from error
    return ScoresFolder.open(place)


def _names(folder: ScoresFolder) -> list[str]:
    """The files that a folder has besides its manifest. All but the problems of tasks are asked for by name: a listing
    may lag.
    """
    plan = folder.manifest.get("plan")
    known = [*([plan["file"]] if plan else []), WARM_STATE, *{PROBLEMS, *folder.storage.names(PROBLEM_FILES)}]
    for part in range(folder.parts):
        known += [folder.part_name(part), folder.losses.name(part)]
    there = folder.storage.existing(known)
    return [name for name in known if name in there]


__all__ = ["copy_folder"]
