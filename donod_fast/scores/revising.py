"""Copy parts from one plan to another: to score only a changed file again, or to merge folders.

A part is identified by its rows (the content of the input, and which rows of it), not by its number. If another plan
has a shard of the same rows, the part is copied with shifted row numbers, without a model.

A folder whose input has changed is *revised*: its new parts have names of a new generation, so that old and new parts
never mix. The manifest names the generation and, until the old parts are copied and removed, the previous one. Every
step can be interrupted and repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from donod_fast.data.shards import ShardPlan
from donod_fast.errors import StoreError, UnreachableError
from donod_fast.scores.folded import SUMMARIES
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.loss_files import LOSS_FILES, ROW
from donod_fast.scores.manifest import differences
from donod_fast.scores.part_store import PARTS, plan_entry
from donod_fast.scores.parts import Key, shard_key

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = ("input.fingerprint", "input.rows", "part_rows")
"""Decisive settings that say which rows were scored, not how."""


def adopt(source: ScoresFolder, target: ScoresFolder) -> int:
    """Copy the parts of ``source`` that ``target`` lacks. Returns how many were copied.

    Raises:
        StoreError: a part is damaged or cannot be written, or the settings are not the same.
    """
    # By what they say, not by their hashes: an earlier release wrote another fingerprint of the same model.
    unlike = differences(source.manifest, target.manifest, but=_ROWS)
    if unlike:
        raise StoreError(
            f"{source.name} and {target.name} were scored with different settings:\n  " + "\n  ".join(unlike)
        )
    wanted: dict[Key, list[int]] = defaultdict(list)
    for shard in target.plan:
        if not target.is_committed(shard.number):
            wanted[shard_key(shard, target.manifest["input"])].append(shard.number)
    copied = 0
    for shard in source.plan:
        numbers = wanted.pop(shard_key(shard, source.manifest["input"]), [])
        table = source.read_part(shard.number, hashes=True) if numbers else None
        summary = source.summary(shard.number) if numbers else None
        if table is None or summary is None:
            continue
        losses = source.losses.read(shard.number) if source.losses.wanted and target.losses.wanted else None
        for number in numbers:
            first = target.part_range(number)[0]
            if losses is not None:
                target.losses.write_table(number, shifted(losses, first - source.part_range(shard.number)[0]))
            moved = renumbered(table, first)
            target.write_table(number, moved, summary.signals, summary.samples, summary.gradient)
            copied += 1
    return copied


def renumbered(table: pa.Table, first_row: int) -> pa.Table:
    """A part's rows with other row numbers, from ``first_row`` on."""
    import pyarrow as pa

    column = table.schema.get_field_index("row")
    rows = pa.array(range(first_row, first_row + table.num_rows), pa.int64())
    return table.set_column(column, table.schema.field(column), rows)


def shifted(table: pa.Table, by: int) -> pa.Table:
    """A table with other row numbers, each larger by a number."""
    import pyarrow as pa

    column = table.schema.get_field_index(ROW)
    rows = pa.array(table.column(column).to_numpy() + by, pa.int64())
    return table.set_column(column, table.schema.field(column), rows)


def revise(folder: ScoresFolder, new_input: Mapping[str, Any], plan: ShardPlan) -> None:
    """Adapt a folder to a changed input: parts of unchanged rows stay, the others become missing.

    Raises:
        StoreError: it cannot be read or written. The folder is then as before, or the next run revises it.
    """
    old = folder.manifest
    generation = int(old.get("generation") or 0) + 1
    file = f"plan-g{generation}.parquet"
    content = plan.to_bytes()
    entry = plan_entry(file, plan, content)
    for left in folder.storage.names(f"*-g{generation}-*.parquet"):  # by a `compact` that was interrupted
        folder.storage.remove(left)
    folder.storage.write(file, content)
    before = {name: old.get(name) for name in ("input", "plan", "generation")}
    folder.write_manifest({**old, "input": new_input, "plan": entry, "generation": generation, "before": before})
    finish_revision(folder)


def finish_revision(folder: ScoresFolder) -> None:
    """Copy the parts of the previous generation that a revised folder still needs, and remove the others.

    Raises:
        StoreError: a part cannot be read or written.
    """
    before = folder.manifest.get("before")
    if before is None:
        return
    settled = {key: value for key, value in folder.manifest.items() if key != "before"}
    old = ScoresFolder(folder.storage, {**settled, **before})
    if folder.storage.exists(before["plan"]["file"]):  # else all parts were copied, and the last steps were interrupted
        lacking = {
            shard_key(shard, folder.manifest["input"]) for shard in folder.plan if not folder.is_committed(shard.number)
        }
        for shard in old.plan if lacking else ():
            part = shard.number
            if shard_key(shard, old.manifest["input"]) not in lacking:
                continue
            try:
                old.read_part(part)
            except UnreachableError:
                raise
            except StoreError:  # damaged: as good as absent
                folder.storage.remove(old.part_name(part))
            try:
                old.losses.read(part)
            except UnreachableError:
                raise
            except StoreError:
                old.losses.remove(part)
        adopt(old, folder)
    _drop_others(folder)
    folder.write_manifest(settled)


def _drop_others(folder: ScoresFolder) -> None:
    """Remove parts and plans of other generations, the plans last."""
    ours = {folder.part_name(part) for part in range(folder.parts)} | {folder.manifest["plan"]["file"]}
    ours |= {folder.losses.name(part) for part in range(folder.parts)}
    for name in (
        SUMMARIES,
        *folder.storage.names(PARTS),
        *folder.storage.names(LOSS_FILES),
        *folder.storage.names("plan*.parquet"),
    ):
        if name not in ours:
            folder.storage.remove(name)


__all__ = ["adopt", "finish_revision", "renumbered", "revise"]
