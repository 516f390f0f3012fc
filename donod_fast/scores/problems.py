"""``problems.json`` of a scores folder: what went wrong while it was scored, for ``donod-fast status``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from donod_fast.system.storage import Storage

PROBLEMS = "problems.json"

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
    """Problems of a folder, oldest first; empty if they cannot be read."""
    try:
        return [Problem(**entry) for entry in json.loads(storage.read(PROBLEMS))]
    except (OSError, ValueError, TypeError):
        return []


def add_problem(storage: Storage, part: int | None, text: str) -> None:
    """Add a problem of now, and keep the newest 1,000. Raises StoreError: it cannot be written."""
    problems = [*read_problems(storage), Problem(part, text, time.time())][-_MOST_PROBLEMS:]
    storage.write(PROBLEMS, json.dumps([asdict(problem) for problem in problems], indent=1).encode())


__all__ = ["PROBLEMS", "Problem", "add_problem", "read_problems"]
