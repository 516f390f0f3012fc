"""Parts taken over from one plan into another: a changed file is scored anew without the others, folders are joined.

A part is known by its rows (which input by content, which rows of it), not by its number. Where another plan has a
shard of the same rows, the part is copied with its row numbers shifted, which needs no model.

A folder whose input has changed is *revised*: its new parts have names of a new generation, so that old and new never
mix. The manifest names the generation and, until the old parts are taken over and gone, the one before. Each step can
be killed and done again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from donod_fast.data.shards import Shard, ShardPlan
from donod_fast.errors import StoreError
from donod_fast.scores.folder import PARTS, ScoresFolder

if TYPE_CHECKING:
    import pyarrow as pa

Key = tuple[tuple[str, int, int], ...]


def shard_key(shard: Shard, inputs: list[Mapping[str, Any]]) -> Key:
    """What a shard's rows are, whatever their numbers: content of the input, first row in it, rows."""
    return tuple((inputs[each.input]["digest"], each.start, each.rows) for each in shard.segments)


def adopt(source: ScoresFolder, target: ScoresFolder) -> int:
    """Copy the parts of ``source`` that hold rows of a part that ``target`` lacks; how many were copied.

    Raises:
        StoreError: a part is damaged or cannot be written, or the settings are not the same.
    """
    if source.settings != target.settings:
        raise StoreError(f"{source.name} and {target.name} were scored with different settings")
    wanted: dict[Key, list[int]] = defaultdict(list)
    for shard in target.plan:
        if not target.is_committed(shard.number):
            wanted[shard_key(shard, target.manifest["input"]["inputs"])].append(shard.number)
    copied = 0
    for shard in source.plan:
        numbers = wanted.pop(shard_key(shard, source.manifest["input"]["inputs"]), [])
        table = source.read_part(shard.number) if numbers else None
        summary = source.summary(shard.number) if numbers else None
        if table is None or summary is None:
            continue
        signals = summary.signals
        for number in numbers:
            target.write_table(number, renumbered(table, target.part_range(number)[0]), signals)
            copied += 1
    return copied


def renumbered(table: pa.Table, first_row: int) -> pa.Table:
    """A part's rows with other row numbers, from ``first_row`` on."""
    import pyarrow as pa

    column = table.schema.get_field_index("row")
    rows = pa.array(range(first_row, first_row + table.num_rows), pa.int64())
    return table.set_column(column, table.schema.field(column), rows)


def revise(folder: ScoresFolder, new_input: Mapping[str, Any], plan: ShardPlan) -> None:
    """Turn a folder to a changed input: parts of unchanged rows stay, the others are missing.

    Raises:
        StoreError: it cannot be read or written; then the folder is as before, or revised in the next run.
    """
    old = folder.manifest
    generation = int(old.get("generation") or 0) + 1
    file = f"plan-g{generation}.parquet"
    entry = {"file": file, "parts": len(plan)}
    folder.storage.write(file, plan.to_bytes())
    before = {name: old.get(name) for name in ("input", "plan", "generation")}
    folder.write_manifest({**old, "input": new_input, "plan": entry, "generation": generation, "before": before})
    finish_revision(folder)


def finish_revision(folder: ScoresFolder) -> None:
    """Take over what a revised folder still has of the generation before, and drop the rest.

    Raises:
        StoreError: a part cannot be read or written.
    """
    before = folder.manifest.get("before")
    if before is None:
        return
    settled = {key: value for key, value in folder.manifest.items() if key != "before"}
    old = ScoresFolder(folder.storage, {**settled, **before})
    if folder.storage.exists(before["plan"]["file"]):  # else all was taken over, and its end was cut short
        for part in range(old.parts):
            try:
                old.read_part(part)
            except StoreError:  # damaged: as good as absent
                folder.storage.remove(old.part_name(part))
        adopt(old, folder)
    _drop_others(folder)
    folder.write_manifest(settled)


def _drop_others(folder: ScoresFolder) -> None:
    """Remove parts and plans of other generations, the plans last."""
    ours = {folder.part_name(part) for part in range(folder.parts)} | {folder.manifest["plan"]["file"]}
    for name in (*folder.storage.names(PARTS), *folder.storage.names("plan*.parquet")):
        if name not in ours:
            folder.storage.remove(name)


__all__ = ["adopt", "finish_revision", "renumbered", "revise", "shard_key"]
