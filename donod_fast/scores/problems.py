"""``problems.json`` of a scores folder: what went wrong while it was scored, for ``donod-fast status``.

Each task of an array has a file of its own, ``problems-I-of-N.json``, so that no task replaces what another wrote.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.confidential import without_secrets
from donod_fast.errors import StoreError, UnreachableError
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.system.checked_json import DamagedError, parsed, verified, with_checksum
from donod_fast.system.storage import Storage, unreadable

PROBLEMS = "problems.json"
PROBLEM_FILES = "problems*.json"
"""Pattern of these files, those of the tasks of arrays included."""

_MOST_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem during a run.

    Attributes:
        part: number of the part, None if the problem does not concern a single part.
        text: description.
        time: seconds since 1970.
    """

    part: int | None
    text: str
    time: float


def read_problems(storage: Storage) -> list[Problem]:
    """Problems of a folder, of all its files, oldest first; empty if there were none.

    Raises:
        StoreError: a file is damaged.
    """
    found = [problem for name in {PROBLEMS, *storage.names(PROBLEM_FILES)} for problem in _read(storage, name)]
    return sorted(found, key=lambda problem: problem.time)[-_MOST_PROBLEMS:]


def _read(storage: Storage, name: str) -> list[Problem]:
    try:
        content = parsed(storage.read(name))
        if isinstance(content, dict):
            content = verified(content, needs_checksum=True).get("problems")
        # Earlier releases wrote the bare list.
        if not isinstance(content, list):
            raise DamagedError("it holds no list of problems")
        return [_problem(entry, at) for at, entry in enumerate(content)]
    except FileNotFoundError:
        return []
    except OSError as error:
        if storage.local is None:
            raise unreadable(storage, name, error) from error
        raise StoreError(f"{storage.url(name)} is damaged ({error}); it holds no scores: remove it") from error
    except DamagedError as error:
        file = storage.url(name)
        raise StoreError(f"{file} is damaged ({error}); it holds no scores: remove it") from error


def add_problem(storage: Storage, part: int | None, text: str, task: ArrayTask | None = None) -> None:
    """Add a problem of now, and keep the newest 1,000. A damaged file is replaced.

    Args:
        storage: the folder.
        part: number of the part, None for a problem of no single part.
        text: description.
        task: the task of an array that this process is, None for none.

    Raises:
        StoreError: it cannot be written.
    """
    name = PROBLEMS if task is None else f"problems-{task.index}-of-{task.count}.json"
    before: list[Problem] = []
    try:
        before = _read(storage, name)
    except UnreachableError:  # it may be intact
        raise
    except StoreError:
        pass
    problems = [*before, Problem(part, without_secrets(text), time.time())][-_MOST_PROBLEMS:]
    content = with_checksum({"problems": [asdict(problem) for problem in problems]})
    storage.write(name, json.dumps(content, indent=1).encode())


def _problem(entry: Any, at: int) -> Problem:
    kinds: dict[str, tuple[type, ...]] = {"part": (int, type(None)), "text": (str,), "time": (int, float)}
    if not isinstance(entry, dict) or entry.keys() != kinds.keys():
        raise DamagedError(f"problem {at} does not have {', '.join(kinds)}")
    for name, wanted in kinds.items():
        if type(entry[name]) not in wanted:
            raise DamagedError(f"{name} of problem {at} is a {type(entry[name]).__name__}")
    return Problem(**entry)


__all__ = ["PROBLEMS", "PROBLEM_FILES", "Problem", "add_problem", "read_problems"]
