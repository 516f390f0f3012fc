"""Browse the programs of an evaluation in a terminal: a list, and one at a time with its failing assertion.

Programs are untrusted text: their control characters are shown as escapes, never sent to the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from donod_fast.errors import InputError, StoreError
from donod_fast.evaluation.folder import SAMPLES, EvalFolder
from donod_fast.evaluation.judging import Verdict
from donod_fast.system.escaping import escaped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PAGE = 20
UNJUDGED = "unjudged"
_NO_VERDICT = Verdict(UNJUDGED, "", False, None, 0.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One program and its verdict.

    Attributes:
        task_id: the task.
        index: the sample's number within its task.
        status: the verdict's status; ``"unjudged"`` if there is no verdict yet.
        detail: the verdict's detail: the failing assertion or the exception.
        base: whether it passes the benchmark's own tests.
        plus: whether it passes EvalPlus's tests too; None if there are none.
        prompt: the task's text in the benchmark; "" if the evaluation is unfinished.
        program: the whole program.
    """

    task_id: str
    index: int
    status: str
    detail: str
    base: bool
    plus: bool | None
    prompt: str
    program: str

    @property
    def name(self) -> str:
        """Task and number, in the form that ``--show`` accepts."""
        return f"{self.task_id}#{self.index}"


def read_entries(folder: Path) -> list[Entry]:
    """Every sample of an evaluation's folder, in order; the evaluation may be unfinished.

    Raises:
        StoreError: the folder does not contain an evaluation, or a file is damaged.
    """
    stored = EvalFolder(folder)
    stored.check_finished()
    verdicts, prompts = dict(stored.verdicts()), stored.prompts()
    entries = []
    for sample in stored.samples():
        verdict = verdicts.get((sample.task_id, sample.index), _NO_VERDICT)
        entries.append(
            Entry(
                sample.task_id,
                sample.index,
                verdict.status,
                verdict.detail,
                verdict.base,
                verdict.plus,
                prompts.get(sample.task_id, ""),
                sample.program,
            )
        )
    if not entries:
        raise StoreError(f"{folder / SAMPLES} contains no samples yet; there is nothing to show")
    return entries


def filtered(entries: Sequence[Entry], status: str | None) -> list[Entry]:
    """Entries with one status; ``"not-passed"`` means all except passed ones, None means all.

    Raises:
        InputError: no entry has that status; the message lists the statuses that occur.
    """
    if status is None:
        return list(entries)
    kept = [one for one in entries if one.status == status or (status == "not-passed" and one.status != "passed")]
    if not kept:
        raise InputError(f"no program is {status!r}; there are {_counted(entries)}")
    return kept


def found(entries: Sequence[Entry], name: str) -> list[Entry]:
    """The entries of a task (``HumanEval/3``, or its number alone), or one of them (``HumanEval/3#1``).

    Raises:
        InputError: there is no such entry.
    """
    task, _, index = name.partition("#")
    kept = [
        one
        for one in entries
        if (one.task_id == task or one.task_id.rpartition("/")[2] == task) and index in ("", str(one.index))
    ]
    if not kept:
        raise InputError(f"there is no sample of {name!r}; the first is {entries[0].name}")
    return kept


def listing(entries: Sequence[Entry], start: int = 0, count: int | None = None) -> RenderableType:
    """A table of entries, numbered from 1."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("sample", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("detail", overflow="ellipsis", no_wrap=True)
    stop = len(entries) if count is None else start + count
    for number, one in enumerate(entries[start:stop], start=start + 1):
        colour = "green" if one.status == "passed" else "red"
        table.add_row(str(number), Text(shown(one.name)), Text(shown(one.status), colour), Text(shown(one.detail)))
    return table


def view(entry: Entry, *, plain: bool = False) -> RenderableType:
    """One program: the task, the program, and the verdict with the failing assertion; not highlighted if ``plain``."""
    from rich.console import Group
    from rich.syntax import Syntax
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"── {shown(entry.name)} " + "─" * 40, "dim")]
    if entry.prompt and not entry.program.startswith(entry.prompt):
        parts += [Text("task", "bold"), Text(shown(entry.prompt.rstrip())), Text("program", "bold")]
    program = shown(entry.program.rstrip())
    if plain:
        parts.append(Text(program))
    else:
        parts.append(Syntax(program, "python", line_numbers=True, word_wrap=True, background_color="default"))
    verdict = Text()
    verdict.append(shown(entry.status), "bold green" if entry.status == "passed" else "bold red")
    if entry.plus is not None:
        verdict.append(f" (base {'passed' if entry.base else 'failed'}, plus {'passed' if entry.plus else 'failed'})")
    if entry.detail:
        verdict.append(f": {shown(entry.detail)}")
    return Group(*parts, Text("─" * 60, "dim"), verdict)


def browse(entries: Sequence[Entry], console: Console, ask: Callable[[str], str], status: str | None = None) -> None:
    """Browse entries: pages of the list or one program at a time, by short commands read with ``ask``, until ``q``.

    Args:
        entries: all programs.
        console: the console to print on.
        ask: prints a text and returns the answer; EOFError ends the loop.
        status: the first filter, in the form that :func:`filtered` accepts.
    """
    kept, page, at, note = filtered(entries, status), 0, None, ""
    while True:
        if at is None:
            console.print(f"{len(kept)} of {len(entries)} programs: {_counted(kept)}", markup=False, highlight=False)
            console.print(listing(kept, page * PAGE, PAGE))
            keys = "number or task: show · n/p: page · f STATUS: filter (f alone: all) · q: quit > "
        else:
            console.print(view(kept[at]))
            keys = f"{at + 1} of {len(kept)} · n/p: next, previous · l: list · number or task: show · q: quit > "
        if note:
            console.print(note, markup=False, highlight=False)
        try:
            answer = ask(keys).strip()
        except EOFError:
            return
        note = ""
        word, _, rest = answer.partition(" ")
        if word in ("q", "quit"):
            return
        if word in ("", "l", "b") and at is not None:
            page, at = at // PAGE, None
        elif word in ("n", "p", ""):
            step = -1 if word == "p" else 1
            if at is not None:
                at = min(max(at + step, 0), len(kept) - 1)
            else:
                page = min(max(page + step, 0), (len(kept) - 1) // PAGE)
        elif word == "f":
            try:
                kept, page, at = filtered(entries, rest.strip() or None), 0, None
            except InputError as error:
                note = str(error)
        elif word.isdecimal() and 1 <= int(word) <= len(kept):
            at = int(word) - 1
        else:
            try:
                at = kept.index(found(kept, answer)[0])
            except InputError as error:
                note = str(error)


def shown(text: str) -> str:
    """Text with control, bidirectional and invisible characters as escapes, except tabs and line ends."""
    return "\t".join(map(escaped, text.split("\t")))


def _counted(entries: Sequence[Entry]) -> str:
    counts = Counter(one.status for one in entries)
    return ", ".join(f"{number} {shown(status)}" for status, number in counts.most_common())
