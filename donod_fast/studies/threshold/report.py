"""The threshold study as a report: table, pictures, findings, settings; and as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from donod_fast.reports.document import (
    Block,
    Code,
    Document,
    Items,
    Linked,
    Number,
    Picture,
    Section,
    Table,
    Text,
    Value,
)
from donod_fast.studies.core.report import write_report
from donod_fast.studies.core.report_pictures import Level, Point, curves
from donod_fast.studies.core.row_links import RowLinks
from donod_fast.studies.core.selecting import ALL, BY_THRESHOLD
from donod_fast.studies.core.statistics import Estimate
from donod_fast.studies.core.tables import write_csv, write_json
from donod_fast.studies.threshold.findings import Costs, findings, main_measure, measure_of
from donod_fast.studies.threshold.table import BASE, RANDOM, Line, Measure, Separation

CSV, JSON = "results.csv", "results.json"


@dataclass(frozen=True, slots=True)
class ThresholdStudy:
    """A finished study.

    Attributes:
        name, description: name and description of the recipe.
        lines: lines of the table, the base first.
        separations: separation of planted corruptions by each score.
        costs: wall times.
        scoring: facts about scoring: rows, scored rows, tokens, seconds, model, update, device.
        seeds: seeds of training.
        trainings: number of distinct trainings; selections of the same rows are one.
        settings: the whole recipe.
        machine: device, versions, isolation, processes.
        command: command of the study.
        date: date of its end.
    """

    name: str
    description: str
    lines: tuple[Line, ...]
    separations: tuple[Separation, ...]
    costs: Costs
    scoring: Mapping[str, Any]
    seeds: tuple[int, ...]
    trainings: int
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    command: str
    date: str

    @property
    def findings(self) -> list[str]:
        """Sentences generated from the numbers."""
        return findings(self.lines, self.separations, self.costs)


def write_study(study: ThresholdStudy, out: Path, links: RowLinks | None = None) -> tuple[Path, Path]:
    """Write ``report.md``, ``report.html``, ``results.csv``, ``results.json`` and pictures; returns the first two.

    Args:
        study: the study.
        out: its folder.
        links: where methods lead; None for no links.

    Raises:
        InputError: a package of the extra ``study`` is not installed.
        StoreError: a file cannot be written.
    """
    write_csv(out / CSV, [_flat(line, study.costs) for line in study.lines])
    write_json(out / JSON, {**asdict(study), "findings": study.findings})
    return write_report(as_report(study, links), out)


def as_report(study: ThresholdStudy, links: RowLinks | None = None) -> Document:
    """The study as a report for readers, in which methods lead to their rows."""
    seeds, methods = len(study.seeds), dict.fromkeys(line.method for line in study.lines[1:])
    summary = (f"{study.description.strip()} " if study.description.strip() else "") + (
        f"How much training can be saved, and how does that change the model? The corpus was scored once; "
        f"{len(study.lines) - 1} selections by {len(methods)} methods were each trained with {seeds} "
        f"{'seeds' if seeds > 1 else 'seed'} ({study.trainings} distinct trainings) and measured."
    )
    facts = {
        "Rows scored": f"{study.scoring['scored']:,} of {study.scoring['rows']:,}",
        "Model": str(study.settings["train"]["model"]).rstrip("/").rsplit("/", 1)[-1],
        "Scoring": f"{study.scoring['update']}, {study.costs.score:.1f} s",
        "Seeds": ", ".join(map(str, study.seeds)),
        "Device": str(study.machine.get("device", "")),
        "Date": study.date,
    }
    return Document(f"Threshold study: {study.name}", summary, facts, tuple(_sections(study, links or RowLinks({}))))


def _sections(study: ThresholdStudy, links: RowLinks) -> Iterator[Section]:
    yield Section("Results", (Items(tuple(study.findings)), Text(_HOW_SURE)))
    yield Section("Pass rate and loss against tokens saved", tuple(_pictures(study)))
    yield Section("All selections", (_main_table(study, links), *_about_links(study, links)))
    yield Section("Differences and seeds", tuple(_difference_tables(study, links)))
    if study.separations:
        yield Section("Planted corruptions", (_separation_table(study.separations), _kept_table(study.lines, links)))
    yield Section(
        "Settings",
        (
            Text("The command, the recipe with its overrides, and the machine."),
            Code(study.command),
            Code(_yaml(study.settings)),
            Code(_yaml(study.machine)),
        ),
        folded=True,
    )


_HOW_SURE = (
    "Brackets are 95 % intervals. For a share of solved tasks they cover seeds and tasks together (two-way analysis of "
    "variance): other seeds and other tasks of the same kind. For a loss they cover seeds. Differences are paired, "
    "seed by seed and task by task. The intervals are not corrected for multiple comparisons: of twenty comparisons "
    "without any effect, about one interval excludes zero by chance."
)


def _about_links(study: ThresholdStudy, links: RowLinks) -> Iterator[Text]:
    if links.problem:
        yield Text(f"The page of the rows could not be written: {links.problem}")
    elif any(links.address(line.selection) is not None for line in study.lines):
        yield Text(
            "A method that is a link leads to its rows. The others cannot be shown there: all rows, random draws, "
            "thresholds, choices by embeddings, and TOPSIS with another normalisation than the default."
        )


def _method(line: Line, links: RowLinks) -> Value:
    address = links.address(line.selection)
    return line.method if address is None else Linked(line.method, address)


def _main_table(study: ThresholdStudy, links: RowLinks) -> Table:
    names = [one.name for one in study.lines[0].measures]
    planted = any(line.corrupted is not None for line in study.lines)
    columns = [
        "method",
        "kept",
        *names,
        "saved",
        "tokens trained",
        "tokens saved",
        "rows",
        "scoring + training, s",
        *(["corrupted rows"] if planted else []),
    ]
    rows = []
    for line in study.lines:
        row: list[Value] = [
            _method(line, links),
            Number(line.kept, line.amount),
            *(_estimate(measure_of(line, name)) for name in names),
            Number(line.share_saved, f"{line.share_saved:.1%}"),
            Number(line.tokens, f"{line.tokens:,.0f}"),
            Number(line.saved, f"{line.saved:,.0f}"),
            Number(line.rows, f"{line.rows:,.0f}"),
            Number(_wall(line, study.costs), f"{_wall(line, study.costs):.1f}"),
        ]
        if planted:
            share = line.corrupted
            row.append(Number(float("nan"), "–") if share is None else Number(share, f"{share:.1%}"))
        rows.append(tuple(row))
    references = frozenset(at for at, line in enumerate(study.lines) if line.method in (BASE, ALL))
    caption = (
        "Means over seeds. Tokens count every epoch. “Saved” compares with training on everything. Scoring time is "
        "included for methods that need scores."
    )
    return Table(tuple(columns), tuple(rows), caption, references)


def _difference_tables(study: ThresholdStudy, links: RowLinks) -> Iterator[Block]:
    for name in (one.name for one in study.lines[0].measures):
        rows: list[tuple[Value, ...]] = []
        for line in study.lines[1:]:
            one = measure_of(line, name)
            if one is None:
                continue
            rows.append(
                (
                    _method(line, links),
                    Number(line.kept, line.amount),
                    _interval(one.over_seeds),
                    ", ".join(f"{value:.3f}" for value in one.by_seed),
                    *(_interval(one.versus.get(other), signed=True) for other in (RANDOM, ALL)),
                )
            )
        yield Table(
            ("method", "kept", "mean over seeds (t)", "each seed", "Δ vs random", "Δ vs all"),
            tuple(rows),
            f"{name}: the mean with Student's t interval over seeds alone, and the paired differences from a random "
            "selection of as many rows and from training on everything, if the study has them.",
        )


def _separation_table(separations: Sequence[Separation]) -> Table:
    scores = list(dict.fromkeys(one.score for one in separations))
    rows: list[tuple[Value, ...]] = []
    for kind in dict.fromkeys(one.kind for one in separations):
        found = {one.score: one for one in separations if one.kind == kind}
        count = max(one.rows for one in found.values())
        rows.append(
            (
                kind.replace("_", " "),
                Number(count, f"{count:,}"),
                *(_interval(found[score].auc, digits=2) if score in found else "–" for score in scores),
            )
        )
    return Table(
        ("planted", "rows", *scores),
        tuple(rows),
        "AUC: the probability that a method ranks a clean row above a planted one (1: all are found, 0.5: chance, "
        "below 0.5: planted rows are preferred), with DeLong's interval.",
    )


def _kept_table(lines: Sequence[Line], links: RowLinks) -> Table:
    kinds = list(dict.fromkeys(kind for line in lines for kind in line.kept_of))
    rows: list[tuple[Value, ...]] = [
        (
            _method(line, links),
            Number(line.kept, line.amount),
            *(Number(line.kept_of[kind], f"{line.kept_of[kind]:.0%}") for kind in kinds),
        )
        for line in lines
        if line.kept_of
    ]
    caption = "Share of the planted rows of each kind that a selection keeps; a random draw keeps the share in “kept”."
    return Table(("method", "kept", *(kind.replace("_", " ") for kind in kinds)), tuple(rows), caption)


def _pictures(study: ThresholdStudy) -> Iterator[Picture]:
    for at, name in enumerate(one.name for one in study.lines[0].measures):
        series: dict[str, list[Point]] = {}
        for line in study.lines:
            one = measure_of(line, name)
            if one is not None and line.selection is not None and line.selection.keep is not None:
                series.setdefault(line.method, []).append(_point(line, one))
        if series:
            yield curves(
                f"measure-{at}",
                series,
                x_label="training tokens saved",
                y_label=name,
                alt=f"{name} against training tokens saved, a line for each method",
                caption=f"{name} against training tokens saved. Bars are 95 % intervals; points of one fraction are "
                "shifted slightly so that they do not overlap.",
                levels=_levels(study.lines, name),
                x_percent=True,
            )
    yield from _threshold_picture(study)


def _threshold_picture(study: ThresholdStudy) -> Iterator[Picture]:
    name = main_measure(study.lines)
    points = [
        _point(line, one, line.amount.removeprefix("DON "))
        for line in study.lines
        if line.method == BY_THRESHOLD and (one := measure_of(line, name)) is not None
    ]
    if points and name is not None:
        yield curves(
            "don-threshold",
            {"DON threshold": points},
            x_label="training tokens saved",
            y_label=name,
            alt=f"{name} against training tokens saved for thresholds of DON",
            caption=f"{name} when rows with a DON at or above a quantile are kept.",
            levels=_levels(study.lines, name),
            x_percent=True,
        )


def _levels(lines: Sequence[Line], name: str) -> list[Level]:
    levels = []
    for method, title in ((ALL, "all rows"), (BASE, "before training")):
        one = next((measure_of(line, name) for line in lines if line.method == method), None)
        if one is not None:
            bounds = (one.pooled.low, one.pooled.high) if method == ALL else (float("nan"), float("nan"))
            levels.append(Level(title, one.pooled.value, *bounds))
    return levels


def _point(line: Line, one: Measure, label: str = "") -> Point:
    return Point(line.share_saved, one.pooled.value, one.pooled.low, one.pooled.high, label)


def _wall(line: Line, costs: Costs) -> float:
    return line.train_seconds + (0.0 if line.method in (BASE, ALL, RANDOM) else costs.score)


def _estimate(measure: Measure | None) -> Value:
    return "–" if measure is None else _interval(measure.pooled)


def _interval(estimate: Estimate | None, *, digits: int = 3, signed: bool = False) -> Value:
    if estimate is None:
        return Number(float("nan"), "–")
    sign = "+" if signed else ""
    value = f"{estimate.value:{sign}.{digits}f}"
    if not float("-inf") < estimate.low <= estimate.high < float("inf"):
        return Number(estimate.value, value)
    return Number(estimate.value, f"{value} [{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]")


def _flat(line: Line, costs: Costs) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": line.method,
        "amount": line.amount,
        "rows": line.rows,
        "kept": line.kept,
        "tokens": line.tokens,
        "scored_tokens": line.scored_tokens,
        "tokens_saved": line.saved,
        "share_saved": line.share_saved,
        "wall_seconds": round(_wall(line, costs), 3),
        "train_seconds": round(line.train_seconds, 3),
        "measure_seconds": round(line.measure_seconds, 3),
        "corrupted": line.corrupted,
    }
    for one in line.measures:
        row |= {
            one.name: one.pooled.value,
            f"{one.name} low": one.pooled.low,
            f"{one.name} high": one.pooled.high,
            f"{one.name} seeds low": one.over_seeds.low,
            f"{one.name} seeds high": one.over_seeds.high,
            f"{one.name} by seed": " ".join(map(repr, one.by_seed)),
        }
        for other, gap in one.versus.items():
            row |= {
                f"{one.name} minus {other}": gap.value,
                f"{one.name} minus {other} low": gap.low,
                f"{one.name} minus {other} high": gap.high,
            }
    return row


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    plain = json.loads(json.dumps(value, default=str))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)).strip()


__all__ = ["CSV", "JSON", "ThresholdStudy", "as_report", "write_study"]
