"""The verdict of a study in words: what was shown, what was not, and what it would take to show more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from donod_fast.studies.core.paired import what_it_takes
from donod_fast.studies.evidence.comparing import KIND_NAMES, Comparison
from donod_fast.studies.evidence.plan import ROWS, TOKENS
from donod_fast.studies.evidence.result import KEEP
from donod_fast.system.wording import plural

_ALIKE = 0.1
"""Difference in tokens, as a share, below which a selection and its draws are taken as equally large."""


@dataclass(frozen=True)
class Verdict:
    """The verdict.

    Attributes:
        shown: sentences about differences that were shown.
        not_shown: sentences about those that were not.
        takes: what it would take to show more.
        compared: number of distinct comparisons, for which all were adjusted.
    """

    shown: tuple[str, ...]
    not_shown: tuple[str, ...]
    takes: tuple[str, ...]
    compared: int

    def text(self) -> str:
        """Markdown: three paragraphs."""
        parts = []
        for name, said in (("Shown", self.shown), ("Not shown", self.not_shown), ("To show more", self.takes)):
            if len(said) == 1:
                parts.append(f"**{name}**: {said[0]}\n")
            elif said:
                parts.append("\n".join([f"**{name}**:\n", *(f"- {one}" for one in said), ""]))
        return "\n".join(parts)


def verdict(found: Sequence[Comparison]) -> Verdict:
    """Sum up all comparisons of a study, whose p-values are adjusted for their number."""
    shown = []
    for one in found:
        if one.shown:
            better = "beats" if one.better else "is worse than"
            removed = "" if one.arm == KEEP else ", by what its removal costs,"
            shown.append(
                f"{one.method}{removed} {better} {KIND_NAMES[one.kind]} on {one.heldout}{_where(one, found)}: "
                f"{one.difference.text()} nats per token{_confounded(one, found)}"
            )
    compared = found[0].compared if found else 0
    open_ones = [one for one in found if not one.shown]
    names = list(dict.fromkeys(one.method for one in open_ones))
    without = [name for name in names if not any(one.shown and one.better for one in found if one.method == name)]
    not_shown = []
    if not shown:
        not_shown.append(f"that any method differs from random, in {plural(compared, 'comparison')}")
    elif without:
        not_shown.append(f"that {', '.join(without)} beat{'s' if len(without) == 1 else ''} random, anywhere")
    if shown and open_ones:
        not_shown.append(f"{len(open_ones)} of {plural(len(found), 'comparison')}; the report lists each one")
    return Verdict(tuple(shown or ("nothing",)), tuple(not_shown), tuple(_takes(open_ones)), compared)


def _confounded(one: Comparison, found: Sequence[Comparison]) -> str:
    """That the selection is larger or smaller than the draws in tokens, where no draws of as many tokens were made."""
    matched = any(other.method == one.method and other.kind == TOKENS for other in found)
    if one.kind != ROWS or one.arm != KEEP or matched or one.more_tokens is None or abs(one.more_tokens) < _ALIKE:
        return ""
    more = "more" if one.more_tokens > 0 else "fewer"
    return f"; it trained on {abs(one.more_tokens):.0%} {more} tokens, and there are no draws of as many tokens"


def _where(one: Comparison, found: Sequence[Comparison]) -> str:
    """Whatever tells this comparison's setting from others of the study."""
    parts = {
        "pair": one.pair,
        "pool": one.pool,
        "tuning": one.tuning,
        "share": f"{one.share:.0%} kept",
    }
    told = [text for name, text in parts.items() if len({getattr(other, name) for other in found}) > 1]
    return f" ({', '.join(told)})" if told else ""


def _takes(open_ones: Sequence[Comparison]) -> list[str]:
    """For each held-out set, what this study could have shown, and what shows its most promising difference."""
    said = []
    kept = [one for one in open_ones if one.arm == KEEP]
    for heldout in dict.fromkeys(one.heldout for one in kept):
        some = [one for one in kept if one.heldout == heldout]
        some = [one for one in some if one.kind == ROWS] or some
        hopeful = [one for one in some if one.better] or some
        best = max(hopeful, key=lambda one: abs(one.difference.value) / (one.difference.error or math.inf))
        have = best.difference
        said.append(
            f"{best.method} against {KIND_NAMES[best.kind]} on {heldout}: with {plural(have.seeds, 'seed')}, "
            f"{plural(have.draws, 'draw')} and {plural(have.items, 'held-out row')}, "
            f"{what_it_takes(have, compared=best.compared)}"
        )
    return said


__all__ = ["Verdict", "verdict"]
