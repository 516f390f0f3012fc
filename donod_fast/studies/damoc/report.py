"""Results of a DaMoC run: the ranking of candidates, its agreement with full fine-tuning, and the time of both.

They are computed from the results of the cells. ``report.md`` and ``report.json`` have the same content.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from donod_fast.studies.core.tables import markdown_table, write_json, write_text
from donod_fast.studies.damoc.candidates import Way
from donod_fast.studies.damoc.recipe import DamocRecipe
from donod_fast.studies.threshold.parts import HELD_OUT
from donod_fast.system.wording import plural

MARKDOWN, JSON = "report.md", "report.json"


@dataclass(frozen=True)
class Ranked:
    """A candidate in the ranking.

    Attributes:
        name: name of the candidate.
        rank: rank after DaMoC, 1 is best; equal scores share a rank. None if the candidate failed.
        full_rank: rank after full fine-tuning; None if that failed or was not done.
        way: result of DaMoC's steps.
        full: result of full fine-tuning, None if it was not requested.
        notes: notes on its score.
    """

    name: str
    rank: int | None
    full_rank: int | None
    way: Way
    full: Way | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """Agreement of the two rankings over the candidates that worked in both.

    Attributes:
        candidates: number of these candidates.
        kendall: Kendall's τ-b of the ranks; NaN for fewer than two candidates, or if all are equal in one ranking.
        spearman: Spearman's ρ of the ranks; NaN in the same cases.
        top_1: whether the first candidate of DaMoC also has rank 1 after full fine-tuning.
        damoc_seconds: wall time of DaMoC for them: shared steps and the steps of each candidate.
        full_seconds: wall time of full fine-tuning and measuring.
        speed_up: ratio of these two times.
        speed_up_without_evaluation: the same ratio without measuring, which takes about the same time in both.
    """

    candidates: int
    kendall: float
    spearman: float
    top_1: bool
    damoc_seconds: float
    full_seconds: float
    speed_up: float
    speed_up_without_evaluation: float


@dataclass(frozen=True)
class DamocOutcome:
    """A finished run.

    Attributes:
        ranking: candidates, best first, then those that failed, in the recipe's order.
        agreement: agreement with full fine-tuning; None if it was not requested.
        measure: name of the ranking measure: ``heldout``, or the benchmark's name.
        shared: ``seconds`` and results of the steps that all candidates share.
        markdown: the report.
        json: the same content as plain values.
    """

    ranking: tuple[Ranked, ...]
    agreement: Agreement | None
    measure: str
    shared: Mapping[str, Any]
    markdown: Path
    json: Path

    @property
    def worked(self) -> bool:
        """Whether any candidate has a rank."""
        return any(one.rank is not None for one in self.ranking)


def rank_candidates(ways: Mapping[str, Way], fulls: Mapping[str, Way] | None) -> tuple[Ranked, ...]:
    """Rank candidates by their scores after DaMoC, and also by those after full fine-tuning.

    The first measure decides, and a second one breaks ties. A candidate whose held-out loss covers fewer rows than that
    of another candidate is not ranked, because rows without a finite loss would count in its favour.
    """
    ways = _complete(ways)
    ranks = _ranks(ways)
    if fulls is not None:
        fulls = _complete(fulls)
    full_ranks = {} if fulls is None else _ranks(fulls)
    found = [
        Ranked(
            name,
            ranks.get(name),
            full_ranks.get(name),
            way,
            None if fulls is None else fulls[name],
            _notes(way, None if fulls is None else fulls[name]),
        )
        for name, way in ways.items()
    ]
    found.sort(key=lambda one: math.inf if one.rank is None else one.rank)
    return tuple(found)


def agreement(ranking: Sequence[Ranked], shared_seconds: float) -> Agreement:
    """Agreement of the ranking with that of full fine-tuning, and the cost of both."""
    both = [one for one in ranking if one.rank is not None and one.full_rank is not None and one.full is not None]
    first = [one.rank for one in both if one.rank is not None]
    second = [one.full_rank for one in both if one.full_rank is not None]
    kendall = spearman = math.nan
    if len(both) > 1 and len(set(first)) > 1 and len(set(second)) > 1:
        import torch
        from scipy.stats import kendalltau

        from donod_fast.selection.rank_correlation import spearman as rank_correlation

        kendall = float(kendalltau(first, second).statistic)
        spearman = rank_correlation(torch.tensor(first), torch.tensor(second))
    damoc, full = _seconds([one.way for one in both]), _seconds([one.full for one in both if one.full is not None])
    damoc = (damoc[0] + shared_seconds, damoc[1] + shared_seconds)
    return Agreement(
        len(both),
        kendall,
        spearman,
        bool(both) and any(r == min(first) and f == min(second) for r, f in zip(first, second, strict=True)),
        damoc[0],
        full[0],
        full[0] / damoc[0] if damoc[0] else math.nan,
        full[1] / damoc[1] if damoc[1] else math.nan,
    )


def write_report(
    recipe: DamocRecipe,
    out: Path,
    ranking: Sequence[Ranked],
    shared: Mapping[str, Any],
    measure: str,
) -> DamocOutcome:
    """Write ``report.md`` and ``report.json`` into ``out``.

    Raises:
        StoreError: a file cannot be written.
    """
    found = agreement(ranking, sum(shared["seconds"].values())) if recipe.compare else None
    outcome = DamocOutcome(tuple(ranking), found, measure, shared, out / MARKDOWN, out / JSON)
    write_text(outcome.markdown, _markdown(recipe, outcome))
    write_json(
        outcome.json,
        {
            "recipe": recipe.as_dict(),
            "measure": measure,
            "shared": shared,
            "ranking": [asdict(one) for one in ranking],
            "agreement": None if found is None else asdict(found),
        },
    )
    return outcome


def table_rows(outcome: DamocOutcome) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the ranking, as text."""
    compares = outcome.agreement is not None
    score = "nats/row" if outcome.measure == HELD_OUT else outcome.measure
    header = ["candidate", "rank", score, "layers", "seconds"]
    header += ["rank, full", f"{score}, full", "seconds, full"] if compares else []
    rows = []
    for one in outcome.ranking:
        cells = [one.name, _rank(one.rank), _score(one.way, outcome.measure), _layers(one.way), _time(one.way)]
        if compares:
            assert one.full is not None
            cells += [_rank(one.full_rank), _score(one.full, outcome.measure), _time(one.full)]
        rows.append(cells)
    return header, rows


def remarks(outcome: DamocOutcome) -> list[str]:
    """Lines below the table: failures, notes, agreement, time."""
    lines = []
    for one in outcome.ranking:
        lines += [f"{one.name}: failed to {one.way.failed_at}: {one.way.reason}"] if one.way.failed_at else []
        if one.full is not None and one.full.failed_at and one.full.reason != one.way.reason:
            lines.append(f"{one.name}, full fine-tuning: failed to {one.full.failed_at}: {one.full.reason}")
    for note in dict.fromkeys(note for one in outcome.ranking for note in one.notes):
        lines.append(f"{', '.join(one.name for one in outcome.ranking if note in one.notes)}: {note}")
    shared = outcome.shared["seconds"]
    if shared:
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in shared.items())
        lines.append(f"once for all candidates: {steps}")
    found = outcome.agreement
    if found is not None and found.candidates > 1:
        lines.append(
            f"DaMoC and full fine-tuning over {found.candidates} candidates: Kendall τ {_number(found.kendall)}, "
            f"Spearman ρ {_number(found.spearman)}, {'the same' if found.top_1 else 'another'} first"
        )
    if found is not None and found.candidates:
        lines.append(
            f"time: {found.damoc_seconds:.1f} s and {found.full_seconds:.1f} s, {_number(found.speed_up)} times less "
            f"({_number(found.speed_up_without_evaluation)} times without measuring)"
        )
    return lines


def _complete(ways: Mapping[str, Way]) -> dict[str, Way]:
    """Mark candidates whose held-out loss covers fewer rows than another's as failed."""
    counts = {name: int(way.measures[HELD_OUT]["rows"]) for name, way in ways.items() if HELD_OUT in way.measures}
    most = max(counts.values(), default=0)
    checked = {}
    for name, way in ways.items():
        if counts.get(name, most) < most:
            reason = (
                f"only {counts[name]} of {most} held-out rows have a loss with this model; its loss is of other rows"
            )
            way = replace(way, failed_at="evaluate", reason=reason)
        checked[name] = way
    return checked


def _ranks(ways: Mapping[str, Way]) -> dict[str, int]:
    merits = {name: _merit(way) for name, way in ways.items() if not way.failed_at and way.measures}
    return {name: 1 + sum(other > own for other in merits.values()) for name, own in merits.items()}


def _merit(way: Way) -> tuple[float, ...]:
    """Higher is better: pass@k, minus the held-out loss."""
    return tuple(-found["score"] if name == HELD_OUT else found["score"] for name, found in way.measures.items())


def _notes(way: Way, full: Way | None) -> tuple[str, ...]:
    notes = []
    if way.pruning is not None and way.pruning["not_merged"]:
        notes.append(f"pruned layers were not merged: {way.pruning['not_merged']}")
    skipped = sum(way.training.get("skipped", {}).values())
    if skipped:
        notes.append(f"{plural(skipped, 'row')} could not be trained on")
    for one in (way, full):
        cut = 0 if one is None else int(one.measures.get(HELD_OUT, {}).get("truncated", 0))
        if cut:
            notes.append(
                f"{cut} held-out rows are cut at its length limit, so that its loss is over less text than that of a "
                "model with another limit or tokenizer; leave long rows out of heldout"
            )
            break
    return tuple(notes)


def _seconds(ways: Sequence[Way]) -> tuple[float, float]:
    """Total seconds, and seconds without measuring."""
    total = sum(sum(way.seconds.values()) for way in ways)
    return total, total - sum(way.seconds.get("evaluate", 0.0) for way in ways)


def _markdown(recipe: DamocRecipe, outcome: DamocOutcome) -> str:
    prune = recipe.prune
    pruning = f"similarity ≥ {prune.threshold:g}, at most {prune.max_share:.0%} of the layers"
    steps = [
        f"filter: {recipe.filter.method}",
        f"compression: {recipe.compress.method}",
        f"pruning: {'none' if prune.method == 'none' else pruning}",
        f"training: {recipe.train.epochs:g} epoch{'' if recipe.train.epochs == 1 else 's'}",
    ]
    measure = "held-out loss (nats a row; lower is better)" if outcome.measure == HELD_OUT else outcome.measure
    head = [
        f"# DaMoC: {recipe.name}",
        recipe.description,
        f"Candidates by {measure}. {'; '.join(steps)}. {data_line(outcome.shared)}",
        "The steps are our reading of arXiv 2509.01221, whose code is not public.",
        markdown_table(*table_rows(outcome)).rstrip(),
        "\n".join(f"- {line}" for line in remarks(outcome)),
    ]
    return "\n\n".join(part for part in head if part) + "\n"


def data_line(shared: Mapping[str, Any]) -> str:
    """What candidates were trained on: ``40 of 160 rows by random; 31 compressed, 9 kept: 54 % of the tokens.``"""
    line = plural(shared["rows"], "row")
    if "filter" in shared:
        line = f"{shared['rows']:,} of {plural(shared['of'], 'row')} by {shared['filter']}"
    found = shared.get("compress")
    if found is not None:
        statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(found["statuses"].items()))
        line += f"; {statuses}: {found['ratio']:.0%} of the tokens of their texts"
    return f"{line}."


def _rank(rank: int | None) -> str:
    return "–" if rank is None else str(rank)


def _score(way: Way, measure: str) -> str:
    return "–" if way.failed_at or measure not in way.measures else f"{way.measures[measure]['score']:.4f}"


def _layers(way: Way) -> str:
    found = way.pruning
    return "–" if found is None else f"{found['layers']} → {found['layers'] - len(found['dropped'])}"


def _time(way: Way) -> str:
    return f"{sum(way.seconds.values()):.1f}" if way.seconds else "–"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


__all__ = [
    "Agreement",
    "DamocOutcome",
    "Ranked",
    "agreement",
    "data_line",
    "rank_candidates",
    "remarks",
    "table_rows",
    "write_report",
]
