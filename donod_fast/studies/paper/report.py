"""Report of a study of the paper: each of its tables and figures, ours and the paper's, comparable or not and why."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from donod_fast.studies.core.paired import signed
from donod_fast.studies.core.tables import markdown_table, write_csv, write_json, write_text
from donod_fast.studies.evidence.comparing import KIND_NAMES
from donod_fast.studies.evidence.plan import IN, ROWS
from donod_fast.studies.evidence.result import ALL, KEEP, RANDOM, REMOVE, UNTRAINED, EvidenceRow
from donod_fast.studies.focus.report import TIED
from donod_fast.studies.paper.comparisons import Comparison, DomainOf, Measure, find, measures_of, summary
from donod_fast.studies.paper.measures import shown_name
from donod_fast.studies.paper.plane import TOP
from donod_fast.studies.paper.published import (
    ABLATION,
    ACROSS,
    FOCUS,
    GRID,
    ITEMS,
    NOISE,
    OTHER_GAIN,
    OVERLAP,
    PLANE,
    STABILITY,
    TARGET_GAIN,
    UNKNOWN,
    Item,
    facts,
)
from donod_fast.studies.paper.result import PaperStudy
from donod_fast.studies.paper.sections import PairSection
from donod_fast.studies.sensitivity.report import outcome_table
from donod_fast.studies.stability.run import LOSS
from donod_fast.system.wording import plural

PLANE_PICTURE = "plane.png"
_CLAIMED = 0.3
"""Share of the rows that the abstract's figures keep."""


def write_paper_report(out: Path, study: PaperStudy, domain_of: DomainOf) -> None:
    """Write ``report.md``, ``result.json`` and ``tables/*.csv``.

    Raises:
        StoreError: a file cannot be written.
    """
    tables = out / "tables"
    write_csv(tables / "grid.csv", [_plain(row) for row in study.grid.rows])
    write_csv(tables / "differences.csv", [one.as_dict() for one in study.comparisons])
    write_csv(tables / "plane.csv", [asdict(one) for one in study.plane])
    write_csv(tables / "paper.csv", [_item_row(item, study) for item in ITEMS])
    write_json(out / "result.json", {**study.as_dict(), "recipe": study.recipe.as_dict(), "grid": study.grid.settings})
    write_text(out / "report.md", "\n".join(_Report(study, domain_of, out).parts()))


class _Report:
    def __init__(self, study: PaperStudy, domain_of: DomainOf, out: Path) -> None:
        self.study, self.recipe, self.domain_of, self.out = study, study.recipe, domain_of, out

    def parts(self) -> Iterator[str]:
        """The report's text, section by section."""
        yield from self._head()
        yield from self._items()
        sections = {
            GRID: self._grid,
            ACROSS: self._across,
            ABLATION: self._ablation,
            FOCUS: self._focus,
            STABILITY: self._stability,
            PLANE: self._plane,
            NOISE: self._noise,
        }
        for name, section in sections.items():
            yield f"\n## {name}\n"
            yield from self._statements(name)
            yield from section()
        yield from self._foot()

    def _head(self) -> Iterator[str]:
        recipe, settings = self.recipe, self.study.grid.settings
        yield f"# The tables and figures of DONOD: {recipe.name}\n"
        if recipe.description:
            yield f"{recipe.description.strip()}\n"
        for label, pair in settings["pairs"].items():
            scores, trained = pair["scores"], pair["trained"]
            yield (
                f"- {label}: scored by `{scores['model']}`, trained `{trained['model']}` ({trained['dtype']}, "
                f"{trained['device']})"
            )
        for pool in recipe.pools:
            rows = settings["pools"][pool.name]
            yield f"- corpus {pool.name} ({pool.domain}): {rows['rows']:,} rows, {rows['candidates']:,} can be selected"
        for one in recipe.heldouts:
            yield f"- held out {one.name} ({one.domain}): {settings['heldouts'][one.name]['rows']:,} rows"
        for benchmark in recipe.benchmarks:
            limit = "all problems" if benchmark.limit is None else f"the first {benchmark.limit:,} problems of each set"
            yield f"- benchmark {benchmark.benchmark} ({', '.join(benchmark.domains)}): {limit}"
        tuning = recipe.tuning
        budget = (
            f"{tuning.epochs:g} {'epoch' if tuning.epochs == 1 else 'epochs'}"
            if tuning.tokens is None
            else plural(tuning.tokens, "token")
        )
        yield (
            f"- {plural(len(recipe.seeds), 'training seed')}, {recipe.random.draws} random draws of each kind "
            f"({', '.join(recipe.random.kinds)}); {tuning.method} fine-tuning, {budget} at {tuning.learning_rate:g}\n"
        )

    def _items(self) -> Iterator[str]:
        yield "\n## The paper's tables and figures\n"
        yield (
            "What is known of each, where our figures are, and whether they can be compared; the sections say why not. "
            f"Numbers of the paper that are {UNKNOWN} are left out.\n"
        )
        header = ["of the paper", "what it shows", "ours", "comparable"]
        rows = [
            [item.name, item.question, f"[{item.section}](#{_anchor(item.section)})", _yes(self.study, item)]
            for item in ITEMS
        ]
        yield markdown_table(header, rows)

    def _statements(self, section: str) -> Iterator[str]:
        """What the paper says and whether ours is comparable; items of which the same holds in one line."""
        groups: dict[tuple[str, str], list[str]] = {}
        for item in ITEMS:
            if item.section == section:
                groups.setdefault((self.study.verdicts[item.name].text, _said(item)), []).append(item.name)
        for (verdict, said), names in groups.items():
            yield f"- **{', '.join(names)}**: {verdict}. The paper: {said}."
        yield ""

    def _grid(self) -> Iterator[str]:
        yield (
            "Mean over training seeds (random: over draws). Losses are in nats per token, lower is better; shares of "
            "solved problems from 0 to 1, higher is better. *Target* is the corpus's own domain.\n"
        )
        yield f"Losses against random draws, over all corpora and models:\n\n{self.study.verdict}"
        yield summary(self.study.comparisons)
        for pair in self.recipe.pairs:
            if not pair.crosses:
                yield from self._tables(pair)
        yield from self._claim()

    def _tables(self, pair: PairSection) -> Iterator[str]:
        label = _label(pair)
        for pool in self.recipe.pools:
            measures = measures_of(self.study.grid, pool.name, self.domain_of)
            headings = [_heading(one) for one in measures]
            yield f"\n### {pool.name}, {label}\n"
            yield markdown_table(["trained on", "tokens", *headings], self._values(label, pool.name, measures))
            for kind in self.recipe.random.kinds:
                yield f"Δ vs {KIND_NAMES[kind]}; 95 % intervals, * if shown among all comparisons (Holm):\n"
                yield markdown_table(["trained on", *headings], self._differences(label, pool.name, measures, kind))
            if self.recipe.removal:
                yield "The same for training *without* the selected rows; higher losses speak for the method:\n"
                rows = self._differences(label, pool.name, measures, ROWS, arm=REMOVE)
                yield markdown_table(["trained without", *headings], rows)
            yield "Δ vs training on all rows:\n"
            yield markdown_table(["trained on", *headings], self._differences(label, pool.name, measures, ALL))

    def _values(self, pair: str, pool: str, measures: Sequence[Measure]) -> list[list[str]]:
        groups: dict[tuple[str, str, float, str], list[EvidenceRow]] = {}
        for row in self.study.grid.where(pair=pair, pool=pool, arm=KEEP):
            groups.setdefault((row.method, row.kind, row.share, row.matched), []).append(row)
        order = sorted(groups, key=lambda key: (key[2] if key[0] not in (UNTRAINED, ALL) else -1, key[0] == RANDOM))
        return [
            [
                _group_name(*key),
                f"{_mean([row.tokens for row in groups[key]]):,.0f}",
                *(f"{_mean([one.of(row) for row in groups[key]]):.4f}" for one in measures),
            ]
            for key in order
        ]

    def _differences(
        self, pair: str, pool: str, measures: Sequence[Measure], against: str, *, arm: str = KEEP
    ) -> list[list[str]]:
        some = find(self.study.comparisons, pair=pair, pool=pool, against=against, arm=arm)
        return [
            [f"{method} {share:.0%}", *(_text(some.get((method, share, one.name))) for one in measures)]
            for share in self.recipe.shares
            for method in self.recipe.methods
        ]

    def _claim(self) -> Iterator[str]:
        """The abstract's claim: TOPSIS at 30 % against all rows, in and outside the target domain."""
        known = facts()
        yield f"\n### The abstract's claim: TOPSIS at {_CLAIMED:.0%} against all rows\n"
        if _CLAIMED not in self.recipe.shares or "topsis" not in self.recipe.methods:
            yield f"This run has no TOPSIS selection of {_CLAIMED:.0%}.\n"
            return
        rows = []
        for one in self.study.comparisons:
            if (one.method, one.share, one.against) == ("topsis", _CLAIMED, ALL):
                is_target = one.measure.domain == IN
                fact = known[TARGET_GAIN if is_target else OTHER_GAIN]
                rows.append(
                    [
                        f"{one.pool}, {one.pair}",
                        _heading(one.measure),
                        one.text(),
                        f"{signed(100 * one.relative, 2)} %" if math.isfinite(one.relative) else "",
                        f"accuracy +{fact.value:.2f} %",
                    ]
                )
        yield markdown_table(["corpus, model", "measure", "ours, Δ", "ours, relative", "the paper"], rows)
        item = next(one for one in ITEMS if any(fact.name == TARGET_GAIN for fact in one.facts))
        yield f"{self.study.verdicts[item.name].text.capitalize()}.\n"

    def _across(self) -> Iterator[str]:
        crossing = [pair for pair in self.recipe.pairs if pair.crosses]
        if not crossing:
            yield "No pair of this recipe scores with one model and trains another.\n"
            return
        yield from self._shared_rows(crossing)
        for pair in crossing:
            yield from self._tables(pair)

    def _shared_rows(self, crossing: Sequence[PairSection]) -> Iterator[str]:
        """How many rows the trained model would have selected, too."""
        chosen = self.study.grid.selections
        rows = []
        for pair in crossing:
            own = next((one for one in self.recipe.pairs if not one.crosses and one.train == pair.train), None)
            for pool in self.recipe.pools:
                for share in self.recipe.shares if own is not None else ():
                    first, second = (
                        set(chosen[_label(one), pool.name, "topsis", share])
                        for one in (pair, own)
                        if one is not None and (_label(one), pool.name, "topsis", share) in chosen
                    )
                    rows.append(
                        [f"{pool.name}, {_label(pair)}", f"{share:.0%}", f"{len(first & second) / len(first):.3f}"]
                    )
        if rows:
            yield "Share of the rows selected by TOPSIS that the trained model's own scores select, too:\n"
            yield markdown_table(["corpus, pair", "kept (chance)", "shared"], rows)

    def _ablation(self) -> Iterator[str]:
        if not self.study.ablation:
            yield "This recipe has no ablation.\n"
        for pool, study in self.study.ablation.items():
            yield f"\n### {pool}\n"
            yield outcome_table(study.outcomes, with_keep=True)
            yield (
                "Overlap: share of the kept rows that TOPSIS keeps, too. No row is damaged. Rank correlation of TOPSIS "
                f"with DON {signed(study.spread.topsis_don, 3)}, with −NOD {signed(study.spread.topsis_nod, 3)}. "
                f"[Report](ablation-{pool}/report.md)\n"
            )

    def _focus(self) -> Iterator[str]:
        result = self.study.focus
        if result is None:
            yield "This recipe does not compare layers.\n"
            return
        rows = []
        for corpus in result.settings["corpora"]:
            for optimizer in result.settings["optimizers"]:
                some = [m for m in result.moved if (m.corpus, m.optimizer, m.layer) == (corpus, optimizer, False)]
                places = []
                for figure in ("delta", "relative", "per_weight"):
                    ordered = sorted(some, key=lambda one: -getattr(one, figure))
                    places.append(f"{next(at for at, one in enumerate(ordered, 1) if one.output)} of {len(ordered)}")
                rows.append([corpus, optimizer, *places])
        yield "Place of the output layer among the weight matrices after fine-tuning; 1 moved farthest:\n"
        yield markdown_table(["corpus", "optimizer", "absolute", "relative", "per weight"], rows)
        if result.settings["tied"]:
            yield f"{TIED}\n"
        yield "[Report and pictures](focus/report.md)\n"

    def _stability(self) -> Iterator[str]:
        if not self.study.stability:
            yield "This recipe does not vary the kept share beyond the grid.\n"
        for pool, result in self.study.stability.items():
            methods, shares = list(result.settings["methods"]), list(result.settings["proportions"])
            some = {(one.method, one.proportion): one for one in result.points if one.measure == LOSS}
            yield f"\n### {pool}\n"
            yield f"Held-out loss in the target domain (untrained {result.base[LOSS]:.4f}), 95 % over seeds:\n"
            rows = [[f"{s:.0%}", *(some[m, s].estimate.text(4) for m in methods)] for s in shares]
            yield markdown_table(["kept", *methods], rows)
            picture = f"stability-{pool}/stability.png"
            yield (f"![Loss by kept share]({picture})\n" if (self.out / picture).exists() else "")
            yield f"[Report](stability-{pool}/report.md)\n"

    def _plane(self) -> Iterator[str]:
        yield (
            f"Mean percentile of NOD and DON of the best {TOP:.0%} by TOPSIS and of the worst (NODON), among all "
            "rows; 50 is the middle.\n"
        )
        names = {"topsis": "best (TOPSIS)", "nodon": "worst (NODON)"}
        yield markdown_table(
            ["corpus", "rows", "NOD percentile", "DON percentile", "NOD varies by", "DON varies by"],
            [
                [
                    f"{one.pool}, {names[one.method]}",
                    f"{one.rows:,}",
                    f"{one.nod_percentile:.0f}",
                    f"{one.don_percentile:.0f}",
                    f"{one.nod_variation:.1%}",
                    f"{one.don_variation:.1%}",
                ]
                for one in self.study.plane
            ],
        )
        if (self.out / PLANE_PICTURE).exists():
            yield f"![Rows in the plane of NOD and DON]({PLANE_PICTURE})\n"

    def _noise(self) -> Iterator[str]:
        if not self.study.noise:
            yield "This recipe damages no rows.\n"
            return
        fact = facts()[OVERLAP]
        rows = [
            [
                pool,
                one.kind,
                one.estimate.text(2),
                f"{result.settings['top']:.2f}",
                _paper_overlap(one.kind, fact.value),
            ]
            for pool, result in self.study.noise.items()
            for one in result.overlaps
        ]
        yield "Share of the best 20 % by TOPSIS that is still there after it was damaged and scored again:\n"
        yield markdown_table(["corpus", "damage", "ours", "by chance", "the paper"], rows)
        links = ", ".join(f"[{pool}](noise-{pool}/report.md)" for pool in self.study.noise)
        yield f"Reports: {links}\n"

    def _foot(self) -> Iterator[str]:
        study = self.study
        yield "\n## Run\n"
        yield (
            f"{plural(study.cells, 'cell')}, {study.seconds / 60:,.1f} minutes of work on {platform.machine()} "
            f"({platform.system()}). Rows of every training: [tables/grid.csv](tables/grid.csv); differences: "
            "[tables/differences.csv](tables/differences.csv).\n"
        )
        if study.command:
            yield f"```console\n$ {study.command}\n```\n"


def _plain(row: EvidenceRow) -> Mapping[str, Any]:
    return row.as_dict()


def _item_row(item: Item, study: PaperStudy) -> dict[str, Any]:
    found = study.verdicts[item.name]
    return {
        "item": item.name,
        "section": item.section,
        "paper": "; ".join(fact.text for fact in item.facts),
        "sources": "; ".join(dict.fromkeys(fact.source for fact in item.facts)),
        "comparable": found.comparable,
        "reasons": "; ".join(found.reasons),
    }


def _yes(study: PaperStudy, item: Item) -> str:
    return "yes" if study.verdicts[item.name].comparable else "no"


def _said(item: Item) -> str:
    return "; ".join(f"{fact.text} [{fact.source}]" for fact in item.facts) or "not known here"


def _label(pair: PairSection) -> str:
    return f"{pair.score} → {pair.train}" if pair.crosses else pair.train


def _heading(measure: Measure) -> str:
    name = measure.name if measure.is_loss else shown_name(measure.name)
    return f"{name} ({'target' if measure.domain == IN else 'other'}{'' if measure.is_loss else ', share'})"


def _group_name(method: str, kind: str, share: float, matched: str) -> str:
    if method in (UNTRAINED, ALL):
        return {UNTRAINED: "untrained", ALL: "all rows"}[method]
    about = f", as {kind} of {matched}" if matched else f", as many {kind}" if kind else ""
    return f"{method} {share:.0%}{about}"


def _text(found: Comparison | None) -> str:
    return "" if found is None else found.text()


def _paper_overlap(kind: str, value: float | None) -> str:
    return f"{value:.3f}" if kind == "masked" and value is not None else ""


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _anchor(section: str) -> str:
    return section.lower().replace(" ", "-").replace("–", "")


__all__ = ["PLANE_PICTURE", "write_paper_report"]
