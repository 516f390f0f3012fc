"""What a table of detections shows, in sentences: which methods find the damage, and whether the default does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from donod_fast.demo.report import ALL_KINDS, Count, Detection

FOUND_SHARE = 0.5
"""A method finds the damage if its count covers this share of the way from chance to the best possible count."""


class Verdict(Enum):
    """A count of dropped corruptions compared with the chance interval (mean ± two standard deviations)."""

    FOUND = "most of the damage"
    ABOVE = "somewhat more than chance"
    CHANCE = "as many as chance"
    BELOW = "fewer than chance"


def judge(detection: Detection, count: Count) -> Verdict:
    """Compare one count of ``detection`` with chance."""
    mean, margin = detection.chance(count)
    if count.dropped > mean + margin:
        best = min(count.planted, detection.dropped_share * detection.rows)
        return Verdict.FOUND if count.dropped - mean >= FOUND_SHARE * (best - mean) else Verdict.ABOVE
    return Verdict.BELOW if count.dropped < mean - margin else Verdict.CHANCE


def conclude(detections: Sequence[Detection], *, default: str, control: str) -> str:
    """State in a few lines what the table of ``detections`` shows.

    Args:
        detections: the methods, as in the table; all drop the same number of rows.
        default: the method that ``donod-fast select`` uses unless another one is named.
        control: the random draw; no verdict is given on it.

    Returns:
        A headline, then one line per verdict, and one line for each method that drops one kind of
        damage more often than chance and another kind less often.

    Raises:
        ValueError: ``default`` is not among the methods.
    """
    methods = [detection for detection in detections if detection.method != control]
    if default not in [detection.method for detection in methods]:
        raise ValueError(f"{default} is not among the methods")
    total, share = methods[0].kinds[ALL_KINDS], methods[0].dropped_share
    if not total.planted or share in (0, 1):
        return f"This table shows nothing: {share:.0%} of the rows are dropped, {total.planted} rows are damaged."

    verdicts = {detection.method: judge(detection, detection.kinds[ALL_KINDS]) for detection in methods}
    mean, margin = methods[0].chance(total)
    lines = [
        _headline(verdicts, default),
        f"Of {total.planted} damaged rows, chance drops {max(0, mean - margin):.0f} to {mean + margin:.0f}.",
    ]
    for verdict in Verdict:
        group = [detection for detection in methods if verdicts[detection.method] is verdict]
        if group:
            drops = "drops" if len(group) == 1 else "drop"
            counts = _joined([str(detection.kinds[ALL_KINDS].dropped) for detection in group])
            names = _joined([detection.method for detection in group])
            lines.append(f"- {names} {drops} {verdict.value}: {counts}.")
    lines += [line for line in map(_mixed, methods) if line]
    return "\n".join(lines)


def _headline(verdicts: Mapping[str, Verdict], default: str) -> str:
    named = f"the default, {default},"
    finders = [method for method, verdict in verdicts.items() if verdict is Verdict.FOUND]
    others = [method for method in finders if method != default]
    if default in finders and others:
        text = f"{named} finds the damage here, and so {'does' if len(others) == 1 else 'do'} {_joined(others)}"
    elif default in finders:
        text = f"only {named} finds the damage here"
    elif others:
        text = f"{_joined(others)} {'finds' if len(others) == 1 else 'find'} the damage; {named} does not"
    else:
        text = f"no method finds the damage, {named} included"
    return f"{text[0].upper()}{text[1:]}: compare before you trust."


def _mixed(detection: Detection) -> str | None:
    more: list[str] = []
    fewer: list[str] = []
    for kind, count in detection.kinds.items():
        verdict = judge(detection, count)
        if kind != ALL_KINDS and verdict is not Verdict.CHANCE:
            shown = f"{kind.replace('_', ' ')} ({count.dropped} of {count.planted})"
            (fewer if verdict is Verdict.BELOW else more).append(shown)
    if not (more and fewer):
        return None
    return f"- By kind, {detection.method} is above chance on {_joined(more)}, but below it on {_joined(fewer)}."


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
