"""Summary of a finished run of ``donod-fast score``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from donod_fast.cli import output
from donod_fast.data.settings import STDIN, CorpusSettings, MaskSettings
from donod_fast.models.settings import ModelSource
from donod_fast.scores.mask_facts import masks_text
from donod_fast.scores.step_facts import StepFacts
from donod_fast.scores.unscored import commonest_cause, show_command
from donod_fast.system.options import as_options, options_of
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.engines.choosing import Done, ScoreRequest
    from donod_fast.engines.prologue import TaskOutcome

_SHOW_OPTIONS = {field.name for kind in (CorpusSettings, ModelSource, MaskSettings) for field in options_of(kind)}


def summary(done: Done) -> dict[str, Any]:
    """The summary as JSON values, for ``--json``."""
    outcome = done.outcome
    if outcome.task is not None:
        return _task_summary(done, outcome.task)
    cause = commonest_cause(outcome.folder)
    return {
        "out": outcome.folder.name,
        "rows": outcome.folder.rows,
        "by_status": dict(outcome.counts),
        "commonest_cause": None if cause is None else asdict(cause),
        "resumed_rows": outcome.resumed_rows,
        "formats": dict(outcome.formats),
        "records": outcome.folder.sample_counts().as_json(),
        "template": outcome.folder.manifest["masks"]["template"],
        "mask": outcome.folder.manifest.get("mask"),
        "update": outcome.folder.manifest["update"],
        "step": StepFacts.of(outcome.folder.summaries()).as_json(),
        "seconds": round(done.seconds, 3),
        "compiled": done.compiled,
        "smaller_token_budget": done.smaller_budget,
        "profile": [
            {**asdict(report), "idle": report.idle, "packing": report.packing, "tokens_per_second": rate}
            for report in done.reports
            for rate in (report.tokens_per_second,)
        ],
    }


def summary_text(done: Done) -> str:
    """The summary as lines of text."""
    if done.outcome.task is not None:
        return _task_text(done, done.outcome.task)
    folder, old = done.outcome.folder, done.outcome.resumed_rows
    update = folder.manifest["update"]
    lines = [f"{plural(folder.rows, 'row')} in {folder.name}: {output.counts(done.outcome.counts)}"]
    cause = commonest_cause(folder) if done.outcome.counts["scored"] else None  # without scores, it ends as an error
    if cause is not None:
        lines.append(f"not scored: {cause.text()}")
    if done.outcome.formats:
        formats = output.counts(done.outcome.formats)
        lines.append(f"formats: {formats}; update: {update['update']}, lr {update['lr']:g}")
    lines.append(masks_text(folder.manifest))
    if step := StepFacts.of(folder.summaries()).line():
        lines.append(step)
    lines += folder.sample_counts().lines(folder.rows)
    new = f"{plural(folder.rows - old, 'row')} in {output.duration(done.seconds)}"
    lines.append(new + (f", {old:,} already done" if old else "") + (f"; {done.compiled}" if done.compiled else ""))
    if done.smaller_budget is not None:
        lines.append(f"memory ran out and batches were halved: --token-budget {done.smaller_budget} would have fitted")
    lines += [report.text() for report in done.reports]
    if done.outcome.counts["scored"]:
        if look := show_command(folder):
            lines.append(f"check the masks: {look}")
        lines.append(f"next: donod-fast select {shlex.quote(folder.name)} --keep 0.3 --out subset.jsonl")
        lines.append(f"look at them: donod-fast report {shlex.quote(folder.name)} --out report.html")
    return "\n".join(lines)


def _task_summary(done: Done, task: TaskOutcome) -> dict[str, Any]:
    return {
        "out": done.outcome.folder.name,
        "task": task.task.index,
        "tasks": task.task.count,
        "parts": task.parts,
        "rows": task.rows,
        "by_status": dict(done.outcome.counts),
        "resumed_rows": done.outcome.resumed_rows,
        "seconds": round(done.seconds, 3),
        "parts_left": task.left,
    }


def _task_text(done: Done, task: TaskOutcome) -> str:
    """The summary of one task of an array: of its own parts, without reading those of the others."""
    folder, old = done.outcome.folder, done.outcome.resumed_rows
    if not task.parts:
        return f"task {task.task} of {folder.name}: no parts, because there are fewer parts than tasks"
    whose = f"task {task.task} of {folder.name}: {plural(task.rows, 'row')} in {plural(task.parts, 'part')}"
    new = f"{plural(task.rows - old, 'row')} in {output.duration(done.seconds)}"
    lines = [
        f"{whose}: {output.counts(done.outcome.counts)}",
        new + (f", {old:,} already done" if old else "") + (f"; {done.compiled}" if done.compiled else ""),
        *(report.text() for report in done.reports),
    ]
    if task.left:
        lines.append(f"{plural(task.left, 'part')} of other tasks left: donod-fast status {shlex.quote(folder.name)}")
    else:
        lines.append(f"all {plural(folder.parts, 'part')} are committed")
        lines.append(f"next: donod-fast select {shlex.quote(folder.name)} --keep 0.3 --out subset.jsonl")
    return "\n".join(lines)


def look_command(request: ScoreRequest, status: str) -> str:
    """The command that shows rows with a status before anything is scored, with the options of the request.

    It is ``""`` for standard input, which cannot be read a second time.
    """
    if STDIN in request.corpus.data:
        return ""
    words = ["donod-fast", "show", *request.corpus.data]
    for settings in (request.corpus, request.model, request.masks):
        typed = as_options(settings)
        for field in options_of(type(settings)):
            value = typed[field.name]
            if field.option.is_argument or field.name not in _SHOW_OPTIONS or value in (field.default, None):
                continue
            flag = "--" + field.name.replace("_", "-")
            for one in value if isinstance(value, list) else [value]:
                words += [flag] if one is True else [flag, str(one)]
    return shlex.join([*words, "--status", status])
