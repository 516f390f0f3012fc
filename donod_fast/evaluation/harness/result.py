"""The results of AGIEval and of IFEval from the records of their items, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from donod_fast.evaluation.harness.groups import IFEVAL, averages
from donod_fast.evaluation.harness.statistics import Share, averages_interval, ratio_interval
from donod_fast.evaluation.harness.tasks import LOGLIKELIHOOD

LEVELS = ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose")
"""IFEval's accuracies. The first is its figure in :func:`.groups.averages`: the paper does not say which it prints."""


def question_result(
    items: Sequence[Mapping[str, Any]], style: str, instructions: Share | None = None
) -> dict[str, Any]:
    """Accuracies of the sets of AGIEval, and the paper's groups and averages.

    Args:
        items: the records.
        style: the style of the answers.
        instructions: prompts of IFEval that pass strictly, for the averages; None without them.

    Returns:
        ``sets`` by name, each with ``questions``, ``acc``, ``acc_interval``, and ``acc_norm``, ``acc_norm_interval``
        (log-likelihood) or ``unanswered`` (generated); ``averages`` and ``averages_intervals``; ``cut``.
    """
    by_set: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        by_set.setdefault(item["set"], []).append(item)
    shares = {name: _share(some, "acc") for name, some in by_set.items()}
    sets: dict[str, dict[str, Any]] = {}
    for name, some in by_set.items():
        sets[name] = {"questions": len(some), **_named("acc", shares[name])}
        if style == LOGLIKELIHOOD:
            sets[name] |= _named("acc_norm", _share(some, "acc_norm"))
        else:
            sets[name]["unanswered"] = sum(one["choice"] is None for one in some)
    figures = {**shares, **({} if instructions is None else {IFEVAL: instructions})}
    return {
        "sets": sets,
        "averages": averages({name: one.value for name, one in figures.items()}),
        "averages_intervals": averages_interval(figures),
        "items": len(items),
        "cut": sum(one["cut"] for one in items),
    }


def prompt_result(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """IFEval's four accuracies: of prompts (all instructions followed) and of instructions, strict and loose.

    Returns:
        each of :data:`LEVELS` with its ``…_interval``; ``kinds`` with ``instructions``, ``strict`` and ``loose`` counts
        by kind; ``items`` and ``cut``.
    """
    record: dict[str, Any] = {}
    for verdict in ("strict", "loose"):
        whole = Share(sum(all(one[verdict]) for one in items), len(items))
        passed, totals = ([function(one[verdict]) for one in items] for function in (sum, len))
        record |= _named(f"prompt_{verdict}", whole)
        record[f"instruction_{verdict}"] = sum(passed) / sum(totals)
        record[f"instruction_{verdict}_interval"] = list(ratio_interval(passed, totals))
        record[f"prompts_{verdict}"] = whole.passed
    kinds: dict[str, Counter[str]] = {}
    for item in items:
        for kind, strict, loose in zip(item["kinds"], item["strict"], item["loose"], strict=True):
            kinds.setdefault(kind, Counter()).update(instructions=1, strict=strict, loose=loose)
    return {
        **record,
        "instructions": sum(len(one["kinds"]) for one in items),
        "kinds": {kind: dict(kinds[kind]) for kind in sorted(kinds)},
        "items": len(items),
        "cut": sum(one["cut"] for one in items),
    }


def _share(items: Sequence[Mapping[str, Any]], name: str) -> Share:
    return Share(sum(one[name] for one in items), len(items))


def _named(name: str, share: Share) -> dict[str, Any]:
    return {name: share.value, f"{name}_interval": list(share.interval)}


__all__ = ["LEVELS", "prompt_result", "question_result"]
