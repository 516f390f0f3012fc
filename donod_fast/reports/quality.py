"""The quality of a corpus in a report: rows by status with causes, facts about a run, what was used of the records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from donod_fast.data.types import Status
from donod_fast.reports.scored_table import ScoredTable, StatusRows
from donod_fast.scores.mask_facts import masks_text
from donod_fast.scores.step_facts import StepFacts
from donod_fast.scores.unscored import REMEDIES, place_in
from donod_fast.system.escaping import one_line
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

_MOST_SHOWN = 20
"""Causes of a status, columns and inputs that are named."""

_LONGEST = 400

Entry = dict[str, Any]


def facts(folder: ScoresFolder, table: ScoredTable) -> list[list[str]]:
    """What made the scores, as pairs of a label and a text."""
    manifest = folder.manifest
    model, update = manifest["model"], manifest["update"]
    named = dict.fromkeys(str(model[key]) for key in ("name", "revision", "dtype", "precision") if model.get(key))
    rate = f", lr {update['lr']:g}" if isinstance(update.get("lr"), float | int) else ""
    found = [
        ["model", ", ".join(named)],
        ["update", f"{update.get('update') or ''}{rate}".strip(", ")],
        ["chat template and mask", _masks(manifest)],
        ["input", _inputs(manifest["input"])],
        ["criteria", ", ".join(entry.name for entry in folder.signals)],
        ["carried columns", ", ".join(folder.carry)],
        ["step", StepFacts.of(table.summaries).line() or ""],
        ["scored", _moment(str(manifest.get("created") or ""))],
        ["versions", ", ".join(f"{name} {value}" for name, value in (manifest.get("versions") or {}).items())],
    ]
    return [[label, shorten(one_line(text))] for label, text in found if text]


def statuses(table: ScoredTable) -> list[Entry]:
    """Rows by status, the most first; of those without a score the causes and one example of each."""
    ordered = sorted(table.statuses.items(), key=lambda pair: (pair[0] != Status.SCORED, -pair[1].rows, pair[0]))
    return [_status(name, found) for name, found in ordered]


def _status(name: str, found: StatusRows) -> Entry:
    causes = sorted(found.causes.items(), key=lambda pair: (-pair[1], pair[0]))
    shown: list[Entry] = []
    for cause, rows in causes[:_MOST_SHOWN]:
        shown.append({"text": shorten(one_line(cause)) or name, "rows": rows, "example": _example(found, cause)})
    rest = sum(rows for _, rows in causes[_MOST_SHOWN:])
    if rest:
        shown.append({"text": f"{plural(len(causes) - _MOST_SHOWN, 'other cause')}", "rows": rest, "example": None})
    return {
        "status": name,
        "rows": found.rows,
        "remedy": "" if name == Status.SCORED else REMEDIES[Status(name)],
        "causes": shown,
        "example": shown[0]["example"] if shown else None,
    }


def _example(found: StatusRows, cause: str) -> Entry:
    one = found.examples[cause]
    place, text = place_in(one.detail)
    return {"row": one.row, "id": one_line(one.id), "place": one_line(place), "text": shorten(one_line(text))}


def quality(folder: ScoresFolder, table: ScoredTable) -> list[Entry]:
    """What was used of the records, line by line; ``rows`` is None where a line counts no rows."""
    scored = len(table)
    share = table.scored_tokens / table.tokens if table.tokens else 0.0
    found = [_entry("chat template", _masks(folder.manifest) or "not recorded", None)]
    found.append(_entry("tokens scored", f"{table.scored_tokens:,} of {table.tokens:,} tokens ({share:.1%})", None))
    cut = table.truncated
    found.append(_entry("truncated", f"{cut:,} of {plural(scored, 'scored row')} cut at the length limit", cut))
    samples = table.samples
    for label, counts in (
        ("rewritten for the chat template", samples.recasts),
        ("column no score depends on", samples.unused),
    ):
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        found += [_entry(label, shorten(one_line(name)), rows) for name, rows in ordered[:_MOST_SHOWN]]
        if len(ordered) > _MOST_SHOWN:
            found.append(_entry(label, f"and {len(ordered) - _MOST_SHOWN:,} more", None))
    if samples.excluded_turns:
        turns = plural(samples.excluded_turns, "assistant turn")
        found.append(_entry("left out by the records' own flags", turns, samples.excluded_rows))
    if samples.rows < table.seen:
        text = f"an earlier release scored {plural(table.seen - samples.rows, 'row')}, for which this is not known"
        found.append(_entry("rewrites and unused columns", text, None))
    return found


def folder_warnings(folder: ScoresFolder, table: ScoredTable) -> list[dict[str, str]]:
    """What a reader must know about a folder: it is unfinished, or not all of it can be used."""
    said: list[tuple[str, str]] = []
    name = one_line(folder.name)
    if table.missing:
        said.append((
            "unfinished",
            f"{name} is unfinished: {table.seen:,} of {plural(table.rows, 'row')} are scored so far, and this report "
            "is about them. Ranks and histograms will change; `donod-fast select` needs all rows",
        ))  # fmt: skip
    if table.foreign:
        said.append((
            "settings",
            f"{plural(len(table.foreign), 'part')} of {name} were scored with other settings and are left out, for "
            f"scores of several settings cannot be compared: {one_line(table.foreign[0])}",
        ))  # fmt: skip
    if table.partial:
        said.append((
            "settings",
            f"not every part has the columns of {one_line(', '.join(table.partial))}; they are left out. Run "
            "`donod-fast score` again with the same --signals to add them",
        ))  # fmt: skip
    if not len(table):
        said.append(("statuses", f"no row of {name} has a score; the report shows why, and nothing can be selected"))
    infinite = [label for label, values in table.numbers.items() if _has_infinite(values)]
    if infinite:
        said.append((
            "infinite",
            f"infinite values count as missing in {one_line(', '.join(infinite))}, and no method ranks by them",
        ))  # fmt: skip
    return [{"kind": kind, "text": text} for kind, text in said]


def _has_infinite(values: Any) -> bool:
    import numpy as np

    return bool(np.isinf(values).any())


def shorten(text: str, longest: int = _LONGEST) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _masks(manifest: Mapping[str, Any]) -> str:
    """Template and mask in words; "" for scores that were not made by ``donod-fast score``."""
    masks = manifest.get("masks") or {}
    return masks_text(manifest) if masks.get("template") and masks.get("train_on") else ""


def _moment(written: str) -> str:
    """``2026-05-04 03:02 UTC``; what is no time stays as it is."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return written
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment.tzinfo else f"{moment:%Y-%m-%d %H:%M}"


def _inputs(described: Mapping[str, Any]) -> str:
    inputs = described.get("inputs") or ()
    named = [f"{entry['name']} ({plural(entry['rows'], 'row')})" for entry in inputs[:_MOST_SHOWN]]
    rest = len(inputs) - len(named)
    return ", ".join(named) + (f" and {rest:,} more" if rest else "")


def _entry(label: str, text: str, rows: int | None) -> Entry:
    return {"label": label, "text": text, "rows": rows}


__all__ = ["Entry", "facts", "folder_warnings", "quality", "shorten", "statuses"]
