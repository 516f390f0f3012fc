"""One evaluation: the missing items are answered in batches, each batch is stored, and the result is counted."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.evaluation.harness.folder import ITEMS, HarnessFolder
from donod_fast.evaluation.harness.model import Answering
from donod_fast.evaluation.harness.tasks import Chat, Task
from donod_fast.evaluation.lines import line_writer
from donod_fast.system.checked_json import checked_line

HARNESS_VERSION = 1
"""Part of the settings; incremented whenever the same answer may get another outcome."""

_Requests = Mapping[tuple[str, int], tuple[Task[Any], list[Any]]]
"""The task and the requests of each item, by set and place."""

Progress = Callable[[int, int], None]
"""Called as ``progress(items answered, of how many in all)``, first with those of an earlier run (or 0)."""


def run_tasks(
    tasks: Sequence[Task[Any]],
    model: Answering,
    count: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    out: Path | None = None,
    *,
    chat: Chat | None = None,
    settings: Mapping[str, Any],
    recorded: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Answer the items of tasks and count the result; items that ``out`` holds are not asked again.

    Longest items come first, so that a lack of memory shows at once and batches have little padding. An answer does not
    depend on its batch except through rounding.

    Args:
        tasks: the tasks.
        model: answers their requests.
        count: makes the result of the records of all items, in the order of the tasks.
        out: the folder; None for none.
        chat: writes the prompts; None for bare texts.
        settings: what decides the answers, JSON-serialisable; the prompts are added.
        recorded: further facts for the result.
        overwrite: delete what ``out`` holds.
        progress: called after each batch.

    Returns:
        the result, as ``result.json`` has it.

    Raises:
        InputError: there is no item.
        ModelError: the model cannot answer.
        SettingsMismatchError: ``out`` holds an evaluation with other settings.
        StoreError: ``out`` cannot be read or written.
    """
    from donod_fast.system.locking import locked

    if not any(len(task.items) for task in tasks):
        raise InputError("there are no questions to evaluate")
    requests = {
        (task.name, place): (task, task.requests(place, chat)) for task in tasks for place in range(len(task.items))
    }
    decisive = {**settings, "harness_version": HARNESS_VERSION, "prompts_sha256": _digest(requests)}
    with ExitStack() as stack:
        folder, stored = None, []
        if out is not None:
            stack.enter_context(locked(out))
            folder = HarnessFolder.open_or_create(out, decisive, overwrite=overwrite)
            stored = folder.items()
        records = {(line["set"], line["item"]): line for line in stored if (line["set"], line["item"]) in requests}
        if progress is not None:
            progress(len(records), len(requests))
        start = time.perf_counter()
        writer = None if folder is None else stack.enter_context(line_writer(folder.path / ITEMS))
        for lines in _answered([key for key in requests if key not in records], requests, model):
            if writer is not None:
                writer.write(list(map(checked_line, lines)))
            records.update({(line["set"], line["item"]): line for line in lines})
            if progress is not None:
                progress(len(lines), len(requests))
        seconds = time.perf_counter() - start
        items = [records[key] for key in requests]
        result = {
            **count(items),
            "seconds": round(seconds, 3),
            "settings": {**decisive, "versions": _versions(), **(recorded or {})},
        }
        if folder is not None:
            folder.finish(items, result)
    return result


def _answered(
    missing: Sequence[tuple[str, int]], requests: _Requests, model: Answering
) -> Iterator[list[dict[str, Any]]]:
    """Records of the missing items, some at a time; items of one style are answered together, the longest first."""
    sizes = {key: model.size(requests[key][1], requests[key][0].style) for key in missing}
    order = sorted(missing, key=lambda key: (requests[key][0].style, -sizes[key][0]))
    while order:
        style = requests[order[0]][0].style
        longest = sizes[order[0]][0]
        some = [key for key in order[: model.together(style, longest)] if requests[key][0].style == style]
        order = order[len(some) :]
        asked = [one for key in some for one in requests[key][1]]
        answers = iter(model.answers(asked, style, longest))
        lines = []
        for key in some:
            task, own = requests[key]
            outcome = task.outcome(task.items[key[1]], [next(answers) for _ in own])
            tokens, cut = sizes[key]
            lines.append({"set": key[0], "item": key[1], **outcome, "tokens": tokens, "cut": cut})
        yield lines


def _digest(requests: _Requests) -> str:
    """SHA-256 of everything that is asked, and of the records that decide the outcomes."""
    digest = hashlib.sha256()
    for (name, place), (task, own) in requests.items():
        record = [name, place, task.items[place].digest, [list(one.args) for one in own]]
        digest.update(json.dumps(record, sort_keys=True).encode())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    from donod_fast._version import __version__

    names = ("lm_eval", "torch", "transformers")
    return {"python": platform.python_version(), "donod-fast": __version__, **{name: version(name) for name in names}}


__all__ = ["HARNESS_VERSION", "Progress", "run_tasks"]
