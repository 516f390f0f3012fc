"""The programs of an evaluation as one page: ``donod-fast eval browse --html``.

Programs are untrusted text. A page of a large evaluation would be too large to open: it lists at most :data:`LISTED`
programs, and has the texts of as many as fit in :data:`CHARACTERS`, those that did not pass first. It says what it
leaves out.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from donod_fast.evaluation.browser import Entry
from donod_fast.reports.highlighting import PLAIN, highlighted
from donod_fast.reports.shell import page_pieces, script
from donod_fast.system.wording import plural

LISTED = 20_000
"""Programs in the list."""

CHARACTERS = 10_000_000
"""Characters of the programs, prompts and details in a page."""

HIGHLIGHTED = 2_000_000
"""Characters of programs whose syntax is coloured, which takes about three times their size."""

LONGEST = 50_000
"""Characters of one text."""

PASSED = "passed"


@dataclass(frozen=True, slots=True)
class ShownProgram:
    """A program for the template.

    Attributes:
        number: its number in the page, from 1.
        name: its task and number.
        status: its status.
        kind: number of its status in the page's filter.
        passed: whether it passed.
        brief: its detail in one line.
        tests: what the benchmark's own and the further tests said; "" if there are no further ones.
        detail: the failing assertion or the exception.
        prompt: the task, if the program does not begin with it.
        pieces: the program in coloured pieces; None if it is left out.
    """

    number: int
    name: str
    status: str
    kind: int
    passed: bool
    brief: str
    tests: str
    detail: str
    prompt: str
    pieces: list[tuple[str, str]] | None


def programs_page(entries: Sequence[Entry], folder: str, *, of: int | None = None) -> Iterator[str]:
    """The page in pieces; programs are coloured one by one while it is written.

    Args:
        entries: the programs to show, at least one.
        folder: the evaluation's folder, as it is typed in a command.
        of: number of programs in the folder; None if all are shown.
    """
    counts = Counter(one.status for one in entries)
    order = [status for status, _ in counts.most_common()]
    listed, told, coloured = _chosen(entries)
    tasks = len({one.task_id for one in entries})
    whole = len(entries) if of is None else of
    facts = [
        ("Programs", f"{len(entries):,}" if whole == len(entries) else f"{len(entries):,} of {whole:,}"),
        ("Tasks", f"{tasks:,}"),
        *((status, f"{counts[status]:,}") for status in order),
    ]

    def programs() -> Iterator[ShownProgram]:
        for number, at in enumerate(listed, start=1):
            yield _program(entries[at], number, order, told=at in told, coloured=at in coloured)

    return page_pieces(
        "programs.html.j2",
        title=f"Programs of {folder}",
        scripts=(script("filter.js"),),
        facts=facts,
        statuses=[(kind, status, counts[status]) for kind, status in enumerate(order)],
        passed=order.index(PASSED) if PASSED in order else None,
        left_out=_left_out(entries, folder, len(listed), len(told)),
        total=len(listed),
        programs=programs(),
    )


def _chosen(entries: Sequence[Entry]) -> tuple[list[int], set[int], set[int]]:
    """The places of the programs that are listed, of those with their text, and of those whose text is coloured."""
    by_need = sorted(range(len(entries)), key=lambda at: entries[at].status == PASSED)
    listed, told, coloured = sorted(by_need[:LISTED]), set(), set()
    left, bright = CHARACTERS, HIGHLIGHTED
    for at in by_need[:LISTED]:
        size = sum(min(len(text), LONGEST) for text in _texts(entries[at]))
        if size > left:
            break
        left -= size
        told.add(at)
        if size <= bright:
            bright -= size
            coloured.add(at)
    return listed, told, coloured


def _texts(entry: Entry) -> tuple[str, str, str]:
    return entry.program, entry.detail, "" if entry.program.startswith(entry.prompt) else entry.prompt


def _left_out(entries: Sequence[Entry], folder: str, listed: int, told: int) -> str:
    """A sentence about what the page does not show; "" if it shows everything."""
    parts = []
    if listed < len(entries):
        parts.append(f"lists {listed:,} of {plural(len(entries), 'program')}")
    if told < listed:
        parts.append(f"has the text of {told:,} programs")
    if not parts:
        return ""
    command = shlex.join(["donod-fast", "eval", "browse", folder])
    return (
        f"To stay small enough to open, this page {' and '.join(parts)}, those that did not pass first. "
        f"{command} --show TASK shows the others; with --html and --status they get a page of their own."
    )


def _program(entry: Entry, number: int, order: Sequence[str], *, told: bool, coloured: bool) -> ShownProgram:
    program, detail, prompt = (_cut(text.rstrip()) for text in _texts(entry))
    tests = ""
    if entry.plus is not None:
        tests = f"base {PASSED if entry.base else 'failed'}, plus {PASSED if entry.plus else 'failed'}"
    pieces = None
    if told:
        pieces = highlighted(program) if coloured else [(PLAIN, program)]
    return ShownProgram(
        number=number,
        name=entry.name,
        status=entry.status,
        kind=order.index(entry.status),
        passed=entry.status == PASSED,
        brief=" ".join(detail[:200].split()),
        tests=tests,
        detail=detail if told else "",
        prompt=prompt if told else "",
        pieces=pieces,
    )


def _cut(text: str) -> str:
    hidden = len(text) - LONGEST
    return text if hidden <= 0 else f"{text[:LONGEST]}\n… and {plural(hidden, 'character')} more"


__all__ = ["CHARACTERS", "HIGHLIGHTED", "LISTED", "LONGEST", "ShownProgram", "programs_page"]
