"""Report of an evidence study: the verdict in words, tables, and a CSV file with a row for each training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from donod_fast.studies.core.paired import signed
from donod_fast.studies.core.tables import markdown_table, write_csv, write_json, write_text
from donod_fast.studies.evidence.comparing import KIND_NAMES, Comparison, comparisons, mean_loss
from donod_fast.studies.evidence.plan import ROWS
from donod_fast.studies.evidence.result import ALL, KEEP, RANDOM, REMOVE, UNTRAINED, EvidenceRow, EvidenceStudy
from donod_fast.studies.evidence.verdict import Verdict, verdict
from donod_fast.system.wording import plural

CELLS, COMPARISONS = "cells.csv", "comparisons.csv"


def write_evidence_report(out: Path, study: EvidenceStudy, *, title: str, command: str = "") -> Verdict:
    """Write ``report.md``, ``cells.csv`` (a row for each training), ``comparisons.csv`` and ``result.json``.

    Raises:
        StoreError: a file cannot be written.
    """
    found = comparisons(study)
    said = verdict(found)
    write_csv(out / CELLS, [{**row.as_dict(), "command": command} for row in study.rows])
    write_csv(out / COMPARISONS, [comparison_row(one) for one in found])
    summary = {"verdict": asdict(said), "comparisons": [comparison_row(one) for one in found]}
    write_json(out / "result.json", {"command": command, "settings": study.settings, **summary})
    write_text(out / "report.md", evidence_markdown(study, found, said, title=title, command=command))
    return said


def comparison_row(one: Comparison) -> dict[str, Any]:
    """Plain values of a comparison, for a table."""
    difference = one.difference
    names = ("pair", "pool", "tuning", "arm", "share", "method", "kind", "heldout", "domain", "ours", "random")
    return {
        **{name: getattr(one, name) for name in names},
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "error": difference.error,
        "p": difference.p,
        "adjusted_p": one.adjusted,
        "compared": one.compared,
        "shown": one.shown,
        "detectable": difference.detectable(one.compared),
        **{f"variance_{name}": value for name, value in difference.parts.items()},
        "seeds": difference.seeds,
        "draws": difference.draws,
        "rows": difference.items,
        "overlap": one.overlap,
        "more_tokens": one.more_tokens,
        "words": one.words,
    }


def evidence_markdown(
    study: EvidenceStudy, found: Sequence[Comparison], said: Verdict, *, title: str, command: str = ""
) -> str:
    """Text of the report: the verdict, what was run, tables of losses, costs, and every comparison in words."""
    text = [f"# {title}\n", said.text(), "\n## What was run\n", _described(study)]
    if command:
        text.append(f"\n```console\n$ {command}\n```\n")
    settings = dict.fromkeys((row.pair, row.pool, row.tuning, row.share) for row in study.rows if row.share < 1)
    for pair, pool, tuning, share in settings:
        if tuning:
            rows = list(study.where(pair=pair, pool=pool, tuning=tuning, share=share))
            rows += study.where(pair=pair, pool=pool, tuning=tuning, method=ALL)
            rows += study.where(pair=pair, pool=pool, method=UNTRAINED)
            where = {"pair": pair, "pool": pool, "tuning": tuning, "share": share}
            some = [one for one in found if all(getattr(one, name) == value for name, value in where.items())]
            text.append(_section(f"{pair}, {pool}, {tuning}, {share:.0%} kept", rows, some))
    return "\n".join(text)


def _described(study: EvidenceStudy) -> str:
    settings = study.settings
    trainings = len({(row.tuning, row.seed, row.tokens, str(row.losses)) for row in study.rows if row.seed is not None})
    heldout = ", ".join(f"{plural(one['rows'], 'row')} of {name}" for name, one in settings["heldouts"].items())
    pools = ", ".join(f"{plural(one['candidates'], 'row')} of {name}" for name, one in settings["pools"].items())
    tunings = "; ".join(
        f"{name}: {_amount(one)}, learning rate {one['learning_rate']:g}, about "
        f"{plural(one['step_tokens'], 'token')} a step"
        for name, one in settings["tunings"].items()
    )
    random = settings["random"]
    return (
        f"{plural(trainings, 'training')} with {plural(len(settings['seeds']), 'seed')}. Selected from: {pools}. "
        f"Held out: {heldout}. {plural(random['draws'], 'random draw')} of each kind, each trained with "
        f"{plural(random['seeds_each'], 'seed')}. Training: {tunings}. Losses are in nats per scored token; lower is "
        "better. Differences are the method's loss minus that of random on the same held-out rows, with 95 % intervals "
        "over seeds, draws and held-out rows.\n"
    )


def _amount(tuning: dict[str, Any]) -> str:
    if tuning["tokens"] is not None:
        return plural(tuning["tokens"], "token")
    return f"{tuning['epochs']:g} epochs" if tuning["epochs"] != 1 else "1 epoch"


def _section(title: str, rows: Sequence[EvidenceRow], found: Sequence[Comparison]) -> str:
    heldouts = list(rows[0].losses)
    text = [f"\n## {title}\n"]
    for arm, about in ((KEEP, "Trained on the selection"), (REMOVE, "Trained on the pool without the selection")):
        some = [row for row in rows if row.arm == arm]
        if any(row.method != UNTRAINED for row in some):
            chosen = [one for one in found if one.arm == arm]
            text += [f"{about}:\n", _losses(some, heldouts, chosen)]
            text += [f"\n{line}" for line in _kinds(heldouts, chosen)]
    text += ["\nCost of the scores and of a training (mean over seeds and draws):\n", _costs(rows)]
    text += ["\nIn words:\n", *(f"- {one.words}" for one in found)]
    return "\n".join(text)


def _losses(rows: Sequence[EvidenceRow], heldouts: Sequence[str], found: Sequence[Comparison]) -> str:
    by_line = _by_line(rows)
    of = {(one.method, one.heldout): one for one in found if one.kind == ROWS}
    header = ["", "rows", "tokens"]
    for name in heldouts:
        header += [f"{name}: loss", "Δ vs random, same rows"]
    lines = []
    for name, some in by_line.items():
        line = [name, f"{np.mean([row.rows for row in some]):,.0f}", f"{np.mean([row.tokens for row in some]):,.0f}"]
        for heldout in heldouts:
            compared = of.get((name, heldout))
            line += [f"{mean_loss(some, heldout):.4f}", "" if compared is None else _marked(compared)]
        lines.append(line)
    return markdown_table(header, lines)


def _kinds(heldouts: Sequence[str], found: Sequence[Comparison]) -> list[str]:
    """Tables of the differences from the further kinds of draws."""
    kinds = [kind for kind in dict.fromkeys(one.kind for one in found) if kind != ROWS]
    if not kinds:
        return []
    text = []
    for heldout in heldouts:
        of = {(one.method, one.kind): one for one in found if one.heldout == heldout}
        methods = dict.fromkeys(method for method, _ in of)
        lines = [[name, *(_marked(of[name, kind]) if (name, kind) in of else "" for kind in kinds)] for name in methods]
        text.append(markdown_table([heldout, *(f"Δ vs {KIND_NAMES[kind]}" for kind in kinds)], lines))
    return text


def _costs(rows: Sequence[EvidenceRow]) -> str:
    header = ["", "tokens passed", "scoring TFLOP", "scoring s", "trained tokens", "training TFLOP", "training s"]
    lines = []
    for name, some in _by_line([row for row in rows if row.arm == KEEP and row.method != UNTRAINED]).items():
        line = [name]
        for part in ("scoring", "training"):
            costs = [getattr(row, part) for row in some]
            line += [
                f"{np.mean([cost.tokens for cost in costs]):,.0f}",
                f"{np.mean([cost.flops for cost in costs]) / 1e12:.4g}",
                f"{np.mean([cost.seconds for cost in costs]):.1f}",
            ]
        lines.append(line)
    return markdown_table(header, lines)


def _by_line(rows: Sequence[EvidenceRow]) -> dict[str, list[EvidenceRow]]:
    """Trainings by the lines of a table: methods by name, random draws by kind (and method, where matched)."""
    found: dict[str, list[EvidenceRow]] = {}
    order = {UNTRAINED: 0, ALL: 1}
    for row in sorted(rows, key=lambda row: order.get(row.method, 2 + (row.method == RANDOM))):
        name = row.method
        if row.method == RANDOM:
            name = KIND_NAMES[row.kind] + (f" as {row.matched}" if row.matched else "")
        found.setdefault(name, []).append(row)
    return found


def _marked(one: Comparison) -> str:
    difference = one.difference
    text = f"{signed(difference.value)} [{signed(difference.low)}, {signed(difference.high)}]"
    return text + (" \\*" if one.shown else "")


__all__ = ["CELLS", "COMPARISONS", "comparison_row", "evidence_markdown", "write_evidence_report"]
