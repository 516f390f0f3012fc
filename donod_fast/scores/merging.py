"""Merge scores folders that were made separately with the same settings into one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from donod_fast.data.shards import ShardPlan
from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.manifest import OPTIONS, TOKEN_LOSSES, differences
from donod_fast.scores.revising import adopt
from donod_fast.scores.signals import SignalEntry, joined

_MAY_DIFFER = ("input.fingerprint", "input.rows", "part_rows")
_OF_ONE_RUN = ("generation", "before", "plan", OPTIONS)
"""Sections of a manifest that do not apply to several runs together."""


def merge(places: Sequence[Path | str], out: Path | str, *, overwrite: bool = False) -> ScoresFolder:
    """Join folders into a new one, with the rows of the first folder, then those of the second, and so on.

    If two folders have an input in common (the same file with the same content), it becomes one input of the new folder
    with the parts of both. So folders of one corpus that were scored partly on different machines become complete. The
    caller must hold the lock of ``out`` (``store.locked``).

    Args:
        places: two or more folders. They may be unfinished; parts that all of them lack are missing in the new folder.
        out: the new folder.
        overwrite: replace an existing folder of that name.

    Raises:
        InputError: fewer than two folders are given.
        SettingsMismatchError: the folders were made with different settings; names each difference.
        StoreError: a folder cannot be read, the new folder exists or cannot be written, or two folders divide the same
            file into different parts.
    """
    if len(places) < 2:
        raise InputError("merge joins at least two scores folders")
    folders = [ScoresFolder.open(place) for place in places]
    first = folders[0]
    for folder in folders[1:]:
        where = (f"in {first.name}", f"in {folder.name}")
        unlike = differences(first.manifest, folder.manifest, where, but=_MAY_DIFFER)
        if unlike:
            raise SettingsMismatchError("these folders do not belong together:\n  " + "\n  ".join(unlike))
    inputs, plan = _joined(folders)
    manifest = {
        **{key: value for key, value in first.manifest.items() if key not in ("generation", "before", "plan", OPTIONS)},
        "input": {"rows": plan.rows, "fingerprint": fingerprint_of(inputs), "inputs": inputs},
        "signals": [entry.as_dict() for entry in _signals(folders)],
        "merged_from": [folder.name for folder in folders],
    }
    if any(folder.losses.wanted for folder in folders):
        manifest[TOKEN_LOSSES] = True
    target = ScoresFolder.open_or_create(out, manifest, plan, overwrite=overwrite)
    for folder in folders:
        adopt(folder, target)
    return target


def _signals(folders: Sequence[ScoresFolder]) -> tuple[SignalEntry, ...]:
    """Criteria of all folders together; each new part has those of the old part."""
    found: tuple[SignalEntry, ...] = ()
    for folder in folders:
        found = joined(found, folder.signals, folder.name)
    return found


def fingerprint_of(inputs: Sequence[Mapping[str, Any]]) -> str:
    """Fingerprint of a corpus of these inputs."""
    return hashlib.sha256("\n".join(str(entry["digest"]) for entry in inputs).encode()).hexdigest()


def _joined(folders: Sequence[ScoresFolder]) -> tuple[list[dict[str, Any]], ShardPlan]:
    """All distinct inputs, and the shards of all folders with references to them."""
    inputs: list[dict[str, Any]] = []
    known: dict[tuple[str, str, int], int] = {}
    shards: dict[tuple[tuple[int, int, int], ...], Any] = {}
    for folder in folders:
        numbers = _numbered(folder, inputs, known)
        for lines in folder.plan.lines():
            moved = lines.copy()
            moved[:, 2] = [numbers[at] for at in lines[:, 2]]
            shards.setdefault(tuple(map(tuple, moved[:, 2:5].tolist())), moved)
    ordered = sorted(shards.values(), key=lambda lines: (int(lines[0, 2]), int(lines[0, 3])))
    run_ids: dict[tuple[int, int], int] = {}
    for number, lines in enumerate(ordered):
        lines[:, 0] = number
        if lines[0, 1] >= 0:  # a segment lies within one input, whose number distinguishes the folders
            lines[:, 1] = run_ids.setdefault((int(lines[0, 2]), int(lines[0, 1])), len(run_ids))
    segments = np.concatenate(ordered)
    _refuse_overlaps(segments, inputs)
    return inputs, ShardPlan(segments)


def _numbered(folder: ScoresFolder, inputs: list[dict[str, Any]], known: dict[tuple[str, str, int], int]) -> list[int]:
    """Indices of a folder's inputs among all inputs; new ones are appended."""
    numbers, seen = [], dict[tuple[str, str], int]()
    for entry in folder.manifest["input"]["inputs"]:
        place = str(entry.get("path") or entry.get("url") or entry.get("id") or entry["name"])
        identity = (place, str(entry["digest"]))
        seen[identity] = seen.get(identity, 0) + 1  # a corpus may name a file twice
        key = (*identity, seen[identity])
        if key not in known:
            known[key] = len(inputs)
            inputs.append(entry)
        numbers.append(known[key])
    return numbers


def _refuse_overlaps(segments: Any, inputs: Sequence[Mapping[str, Any]]) -> None:
    """Check that every row of every input is in exactly one shard, and that shards are in the order of the rows."""
    expected = (0, 0)  # next expected input and row
    for line in segments.tolist():
        number, start, rows = line[2:5]
        while expected[0] < number and expected[1] == inputs[expected[0]]["rows"]:
            expected = (expected[0] + 1, 0)
        if (number, start) != expected:
            raise StoreError(
                f"{inputs[number]['name']}: the folders divide it, or files next to it, into different parts; score "
                "it with the same --part-rows and the same files, or merge only one of the folders that have it"
            )
        expected = (number, start + rows)


__all__ = ["fingerprint_of", "merge"]
