"""Open or start the scores folder of a run, and refuse one with other settings or changed files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.reading.streams import check_content
from donod_fast.data.shards import default_part_rows, plan_shards
from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.scores.folder import MANIFEST, ScoresFolder
from donod_fast.scores.manifest import OPTIONS, TOKEN_LOSSES, differences
from donod_fast.scores.revising import finish_revision, revise
from donod_fast.scores.signals import SignalEntry
from donod_fast.system.options import parse_names
from donod_fast.system.storage import Storage, open_storage
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus, KnownFile

_INPUT = ("input.fingerprint", "input.rows")


def open_scores(
    out: Path | str | Storage,
    corpus: Corpus,
    manifest: Mapping[str, Any],
    *,
    overwrite: bool = False,
    rescore_changed: bool = False,
    shared: bool = False,
) -> ScoresFolder:
    """Open or start a scores folder whose lock the caller holds (``system.locking.locked`` or ``task_locked``).

    Args:
        out: path, URL or storage of the folder.
        corpus: the corpus to score.
        manifest: manifest for this corpus, from :func:`donod_fast.engines.local.manifest_of`.
        overwrite: remove existing scores.
        rescore_changed: remove only the scores of files that have changed since they were scored.
        shared: other tasks of an array may open it at this moment.

    Raises:
        SettingsMismatchError: the folder was made with other settings, or (unless ``rescore_changed``) from files that
            have changed since; names each of them.
        StoreError: the folder cannot be read or written.
    """
    plan = plan_shards(corpus, int(manifest["part_rows"]))
    if not overwrite and open_storage(out).exists(MANIFEST):
        folder = ScoresFolder.open(out)
        if shared and folder.manifest.get("before") is not None:
            raise StoreError(
                f"{folder.name}: a run with --rescore-changed was interrupted while it sorted the old parts; give the "
                "command once without --shard to finish that (it may be interrupted once it scores)"
            )
        finish_revision(folder)
        folder.complete_plan(plan)
        changed = changed_inputs(folder.manifest["input"], manifest["input"])
        unlike = differences(folder.manifest, manifest, but=_INPUT)
        if changed and not unlike:
            if not rescore_changed:
                raise SettingsMismatchError(
                    f"{out} holds scores of files that have changed since:\n  "
                    + "\n  ".join(changed)
                    + "\nPut the original content back, or give --rescore-changed to score these files again "
                    "(the scores of all others are kept)."
                )
            revise(folder, manifest["input"], plan)
            return _with_additions(folder, manifest)
        if not changed and not differences(folder.manifest, manifest):  # else it is refused below
            _check_missing(folder, corpus, has_losses=bool(manifest.get(TOKEN_LOSSES)) or folder.losses.wanted)
    folder = ScoresFolder.open_or_create(out, manifest, plan, overwrite=overwrite, shared=shared)
    return _with_additions(folder, manifest)


def _with_additions(folder: ScoresFolder, manifest: Mapping[str, Any]) -> ScoresFolder:
    """Add what a run computes besides the scores to the folder's manifest."""
    folder.add_signals([SignalEntry.from_json(entry) for entry in manifest.get("signals") or ()])
    if manifest.get(TOKEN_LOSSES):
        folder.add_token_losses()
    return folder


def _check_missing(folder: ScoresFolder, corpus: Corpus, *, has_losses: bool) -> None:
    """Refuse files whose bytes have changed, of those with rows that are still to be scored.

    They were not read again when the corpus was opened, because their size and time are the same.

    Raises:
        CorpusError: names the file.
    """
    there = folder.present()
    if has_losses:
        losses = folder.storage.existing(map(folder.losses.name, there))
        there = {part for part in there if folder.losses.name(part) in losses}
    missing = [shard for shard in folder.plan if shard.number not in there]
    for number in sorted({segment.input for shard in missing for segment in shard.segments}):
        facts = getattr(corpus.sources[number], "facts", None) if number < len(corpus.sources) else None
        if facts is not None:
            check_content(facts)


def refuse_known_differences(out: Path | str, settings: Mapping[str, Any]) -> None:
    """Refuse a folder made with other settings, as far as they are known before the model is loaded.

    Args:
        out: path or URL of the folder, which need not exist.
        settings: some entries of the manifest, in JSON types; sections (dicts) may be incomplete.

    Raises:
        SettingsMismatchError: the folder was made with other settings; names each of them.
        StoreError: the folder cannot be read.
    """
    if not open_storage(out).exists(MANIFEST):
        return
    folder = ScoresFolder.open(out)
    wanted = dict(folder.manifest)
    for name, value in settings.items():
        before = wanted.get(name)
        wanted[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    folder.refuse_other_settings(wanted)


def changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each input whose content has changed; empty if the two corpora have different inputs."""
    before, now = old.get("inputs", []), new.get("inputs", [])
    if [_place(entry) for entry in before] != [_place(entry) for entry in now]:
        return []
    return [
        f"{_place(b)}: {_facts(a)} when it was scored, {_facts(b)} now"
        for a, b in zip(before, now, strict=True)
        if a["digest"] != b["digest"] and _place(b) is not None
    ]


def recorded_signals(out: Path | str, input_fingerprint: str) -> dict[str, str]:
    """The criteria that a folder of the same input has or will have: by name the fingerprint of the settings.

    Empty if there is no folder, or one of another input.

    Raises:
        StoreError: the folder cannot be read.
    """
    if not open_storage(out).exists(MANIFEST):
        return {}
    folder = ScoresFolder.open(out)
    if folder.manifest["input"]["fingerprint"] != input_fingerprint:
        return {}
    return {entry.name: entry.fingerprint for entry in folder.signals}


def settled_part_rows(out: Path | str, rows: int, asked: int | None, *, overwrite: bool = False) -> int:
    """Rows per part: as requested, else as in the existing folder, else suitable for the corpus."""
    if asked is not None:
        return asked
    if not overwrite and open_storage(out).exists(MANIFEST):
        return int(ScoresFolder.open(out).manifest["part_rows"])
    return default_part_rows(rows)


def record_options(folder: ScoresFolder, options: Mapping[str, Any]) -> None:
    """Record the options of a run in the manifest, so that the run can be repeated from the folder.

    Criteria and reference sets of earlier runs stay recorded, since their columns stay in the folder.

    Args:
        folder: a folder whose lock the caller holds.
        options: options by name, in JSON types; ``signals`` are names separated by commas, ``reference`` is a list.

    Raises:
        StoreError: the manifest cannot be written.
    """
    before = folder.manifest.get(OPTIONS) or {}
    recorded = joined_options(before, options)
    if recorded != before:
        folder.write_manifest({**folder.manifest, OPTIONS: recorded})


def joined_options(before: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run, with the criteria and reference sets of earlier runs."""
    signals = dict.fromkeys([*parse_names(before.get("signals") or ""), *parse_names(options.get("signals") or "")])
    references = dict.fromkeys([*(before.get("reference") or ()), *(options.get("reference") or ())])
    return {**options, "signals": ",".join(signals) or None, "reference": list(references)}


def known_files(out: Path | str) -> dict[str, KnownFile]:
    """The inputs recorded in a folder, for ``open_corpus``; empty if there is no folder."""
    from donod_fast.data.reading import KnownFile

    try:
        folder = ScoresFolder.open(out)
        entries = folder.manifest["input"]["inputs"]
        places = folder.plan.checkpoints(len(entries))
    except (StoreError, KeyError):  # opening the folder for scoring reports the error
        return {}
    return {
        str(place): KnownFile(entry, checkpoints)
        for entry, checkpoints in zip(entries, places, strict=True)
        if (place := entry.get("path") or entry.get("url")) is not None
    }


def _place(entry: Mapping[str, Any]) -> str | None:
    place = entry.get("path") or entry.get("url") or entry.get("id")
    return None if place is None else str(place)


def _facts(entry: Mapping[str, Any]) -> str:
    size = f"{entry['size']:,} bytes, " if "size" in entry else ""
    return f"{size}{plural(entry['rows'], 'row')}, content {str(entry['digest'])[-12:]}"


__all__ = [
    "changed_inputs",
    "joined_options",
    "known_files",
    "open_scores",
    "record_options",
    "recorded_signals",
    "refuse_known_differences",
    "settled_part_rows",
]
