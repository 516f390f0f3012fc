"""The findings of a threshold study: sentences generated from its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from donod_fast.studies.core.selecting import ALL, BY_THRESHOLD
from donod_fast.studies.core.statistics import Estimate
from donod_fast.studies.threshold.intervals import verdict
from donod_fast.studies.threshold.table import BASE, RANDOM, Line, Measure, Separation


@dataclass(frozen=True, slots=True)
class Costs:
    """Wall time of a study's steps, in seconds.

    Attributes:
        score: scoring the corpus once.
        train_all: a training on everything; None if the study has none.
    """

    score: float
    train_all: float | None


def findings(lines: Sequence[Line], separations: Sequence[Separation], costs: Costs) -> list[str]:
    """The findings, most important first; ``**bold**`` marks the subject of each."""
    return [
        *_training_moves(lines),
        *_by_amount(lines),
        *_against_all(lines),
        *_thresholds(lines),
        *_held_out(lines),
        *_corruptions(lines, separations),
        *_costs(lines, costs),
    ]


def main_measure(lines: Sequence[Line]) -> str | None:
    """The measure that findings begin with: the first share of solved tasks, else the first measure."""
    measures = lines[0].measures
    return next((one.name for one in measures if one.share), measures[0].name if measures else None)


def measure_of(line: Line, name: str | None) -> Measure | None:
    """The measure of a name."""
    return next((one for one in line.measures if one.name == name), None)


def _training_moves(lines: Sequence[Line]) -> Iterator[str]:
    everything = next((line for line in lines if line.method == ALL), None)
    if everything is None:
        return
    before, after = (measure_of(line, main_measure(lines)) for line in (lines[0], everything))
    if before is None or after is None:
        return
    yield (
        f"**What training does.** {after.name} is {before.pooled.text()} before training and {after.pooled.text()} "
        f"after training on all {everything.rows:,.0f} rows ({everything.tokens:,.0f} tokens)."
    )


def _by_amount(lines: Sequence[Line]) -> Iterator[str]:
    name = main_measure(lines)
    for amount, some in _by_keep(lines):
        measured = [(line, one) for line in some if (one := measure_of(line, name)) is not None]
        if len(measured) < 2:
            continue
        ranked = sorted(measured, key=lambda pair: _merit(pair[1]), reverse=True)
        text = ", ".join(f"{line.method} {one.pooled.text()}" for line, one in ranked)
        yield f"**Keeping {amount}**, best first by {name}: {text}. {_against_random(measured)}"


def _against_random(measured: Sequence[tuple[Line, Measure]]) -> str:
    groups: dict[str, list[str]] = {}
    for line, one in measured:
        difference = one.versus.get(RANDOM)
        if difference is not None:
            kind = verdict(difference, higher_is_better=one.share)
            groups.setdefault(kind, []).append(f"{line.method} ({_signed(difference)})")
    if not groups:
        return ""
    words = {
        "better": "Better than random",
        "worse": "Worse than random",
        "no difference": "No significant difference from random",
        "unknown": "Δ vs random, from one seed and therefore without an interval",
    }
    return " ".join(f"{words[kind]}: {', '.join(groups[kind])}." for kind in words if kind in groups)


def _against_all(lines: Sequence[Line]) -> Iterator[str]:
    name = main_measure(lines)
    compared = [
        (line, one.versus[ALL], one.share)
        for line in lines
        if (one := measure_of(line, name)) is not None and ALL in one.versus
    ]
    if not compared or all(verdict(gap) == "unknown" for _, gap, _ in compared):
        return
    by_kind = {
        kind: [(line, gap) for line, gap, share in compared if verdict(gap, higher_is_better=share) == kind]
        for kind in ("better", "worse", "no difference", "unknown")
    }
    counts = {kind: len(found) for kind, found in by_kind.items()}
    yield (
        f"**Against training on everything** ({name}): of {len(compared)} selections {counts['better']} are better, "
        f"{counts['worse']} worse, and {counts['no difference']} show no significant difference."
    )
    if by_kind["better"]:
        yield (
            "Better than everything: "
            + "; ".join(
                f"{_title(line)}, saving {line.share_saved:.0%} of the tokens ({_signed(gap)})"
                for line, gap in sorted(by_kind["better"], key=lambda pair: -pair[0].share_saved)[:6]
            )
            + ("." if len(by_kind["better"]) <= 6 else f"; and {len(by_kind['better']) - 6} more.")
        )
    not_worse = by_kind["better"] + by_kind["no difference"]
    if not_worse:
        line, gap = max(not_worse, key=lambda pair: (pair[0].share_saved, pair[1].value))
        yield (
            f"The cheapest selection that is not significantly worse than everything is {_title(line)}: "
            f"{line.share_saved:.0%} of the tokens saved, difference {_signed(gap)}. "
            "This does not show that it is as good: the lower end of the interval is the loss that is still "
            "possible."
        )
    else:
        yield "Every selection is significantly worse than training on everything."


def _thresholds(lines: Sequence[Line]) -> Iterator[str]:
    name = main_measure(lines)
    points = [
        (line, one) for line in lines if line.method == BY_THRESHOLD and (one := measure_of(line, name)) is not None
    ]
    if len(points) < 2:
        return
    best, one = max(points, key=lambda pair: _merit(pair[1]))
    text = ", ".join(f"{line.amount} ({line.kept:.0%} kept) {other.pooled.value:.3f}" for line, other in points)
    yield f"**DON thresholds** ({name}): {text}. Best: {best.amount}, {one.pooled.text()}."


def _held_out(lines: Sequence[Line]) -> Iterator[str]:
    losses = [
        (line, one) for line in lines for one in line.measures if not one.share and one.name != main_measure(lines)
    ]
    for name in dict.fromkeys(one.name for _, one in losses):
        for amount, some in _by_keep([line for line, one in losses if one.name == name]):
            found = [(line, one) for line in some if (one := measure_of(line, name)) is not None]
            if len(found) < 2:
                continue
            ranked = sorted(found, key=lambda pair: pair[1].pooled.value)
            text = ", ".join(f"{line.method} {one.pooled.value:.3f}" for line, one in ranked)
            yield f"**{name[0].upper()}{name[1:]}, keeping {amount}**, lowest first: {text}. {_against_random(found)}"


def _corruptions(lines: Sequence[Line], separations: Sequence[Separation]) -> Iterator[str]:
    planted = [line for line in lines if line.corrupted is not None]
    everything = next((line for line in planted if line.method == ALL), None)
    if everything is not None and everything.corrupted is not None:
        corpus = everything.corrupted
        for amount, some in _by_keep(planted):
            ranked = sorted(some, key=lambda line: line.corrupted or 0.0)
            text = ", ".join(f"{line.method} {line.corrupted:.1%}" for line in ranked)
            yield f"**Planted corruptions** ({corpus:.1%} of the corpus), share of the rows kept at {amount}: {text}."
    kinds = {kind: [one for one in separations if one.kind == kind] for kind in _kinds(separations)}
    if not kinds:
        return
    *single, last = kinds
    ranked_scores = sorted(kinds[last], key=lambda one: -one.auc.value)
    text = ", ".join(f"{one.score} {one.auc.text(2)}" for one in ranked_scores)
    yield f"**Separation** of {last.replace('_', ' ')} from clean rows (AUC; 0.5 is chance): {text}."
    if single:
        best = {kind: max(kinds[kind], key=lambda one: one.auc.value) for kind in single}
        text = "; ".join(f"{kind.replace('_', ' ')} {one.score} {one.auc.value:.2f}" for kind, one in best.items())
        yield f"The best score for each kind: {text}."


def _costs(lines: Sequence[Line], costs: Costs) -> Iterator[str]:
    if costs.train_all is None:
        return
    best = max((line for line in lines if line.method not in (BASE, ALL)), key=lambda line: line.saved, default=None)
    if best is None:
        return
    gain = costs.train_all - best.train_seconds
    text = (
        f"**Wall time.** Scoring took {costs.score:.1f} s once, a training on everything {costs.train_all:.1f} s, "
        f"one on the smallest selection ({_title(best)}) {best.train_seconds:.1f} s."
    )
    if gain <= 0:
        yield f"{text} At this size selection saves no time."
    elif costs.score > gain:
        yield f"{text} Scoring pays off after {costs.score / gain:.1f} trainings of that size."
    else:
        yield f"{text} Scoring pays off within the first training."


def _by_keep(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    kept = [line for line in lines if line.selection is not None and line.selection.keep is not None]

    def share(line: Line) -> float:
        assert line.selection is not None and line.selection.keep is not None
        return line.selection.keep

    for _, some in groupby(sorted(kept, key=share), share):
        group = list(some)
        yield group[0].amount, group


def _kinds(separations: Sequence[Separation]) -> list[str]:
    """The kinds in order; all kinds together come last."""
    return list(dict.fromkeys(one.kind for one in separations))


def _merit(measure: Measure) -> float:
    return measure.pooled.value if measure.share else -measure.pooled.value


def _title(line: Line) -> str:
    return line.method if line.method == ALL else f"{line.method} at {line.amount}"


def _signed(difference: Estimate) -> str:
    if not (math.isfinite(difference.low) and math.isfinite(difference.high)):
        return f"{difference.value:+.3f}"
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


__all__ = ["Costs", "findings", "main_measure", "measure_of"]
