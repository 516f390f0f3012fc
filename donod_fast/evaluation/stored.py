"""Lines of an evaluation's files → samples, verdicts and prompts: every field is checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from donod_fast.evaluation.judging import Verdict
from donod_fast.evaluation.samples import ENDS, Sample
from donod_fast.system.checked_json import DamagedError

STATUSES = (
    "passed",
    "failed",
    "error",
    "syntax",
    "no_entry_point",
    "timeout",
    "memory",
    "output",
    "exited",
    "protocol",
)
"""All statuses of a verdict; see :class:`donod_fast.evaluation.judging.Verdict`."""

_VERDICT = {"key", "status", "detail", "base", "plus", "seconds"}


def sample_of(line: Mapping[str, Any]) -> Sample:
    """The sample of a line.

    Raises:
        DamagedError: names the field that is missing or wrong.
    """
    ended = _field(line, "ended", str)
    if ended not in ENDS:
        raise DamagedError(f"ended: {ended!r} is none of {', '.join(ENDS)}")
    return Sample(
        _field(line, "task_id", str),
        _count(line, "sample"),
        _field(line, "solution", str),
        _field(line, "completion", str) if line.get("completion") is not None else None,
        _count(line, "tokens"),
        ended,
    )


def verdict_of(line: Mapping[str, Any]) -> tuple[str, Verdict]:
    """The key and the verdict of a line.

    Raises:
        DamagedError: names the field that is missing, unknown or wrong.
    """
    unknown = line.keys() - _VERDICT - {"task_id", "sample"}
    if unknown:
        raise DamagedError(f"{min(unknown)}: no verdict has such a field")
    status = _field(line, "status", str)
    if status not in STATUSES:
        raise DamagedError(f"status: {status!r} is none of {', '.join(STATUSES)}")
    base, plus = _field(line, "base", bool), _field(line, "plus", bool, type(None))
    if status == "passed" and (not base or plus is False):
        raise DamagedError(f"status: {status!r} does not agree with base {base} and plus {plus}")
    seconds = float(_field(line, "seconds", float, int))
    if not 0 <= seconds < math.inf:
        raise DamagedError(f"seconds: {seconds} is no duration")
    return _field(line, "key", str), Verdict(status, _field(line, "detail", str), base, plus, seconds)


def _count(line: Mapping[str, Any], name: str) -> int:
    value: int = _field(line, name, int)
    if value < 0:
        raise DamagedError(f"{name}: {value} is negative")
    return value


def _field(line: Mapping[str, Any], name: str, *kinds: type) -> Any:
    if name not in line:
        raise DamagedError(f"{name}: it is missing")
    if type(line[name]) not in kinds:
        raise DamagedError(f"{name}: it is a {type(line[name]).__name__}, not a {kinds[0].__name__}")
    return line[name]


__all__ = ["STATUSES", "sample_of", "verdict_of"]
