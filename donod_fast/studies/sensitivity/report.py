"""The sensitivity study's report: Markdown with what the numbers say, CSV and JSON with the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from donod_fast.studies.core.corruptions import KINDS
from donod_fast.studies.core.statistics import Estimate
from donod_fast.studies.core.tables import markdown_table, write_csv, write_json, write_text
from donod_fast.studies.sensitivity.measures import ANY
from donod_fast.studies.sensitivity.outcome import SAME, Outcome
from donod_fast.studies.sensitivity.result import DamageStudy, SensitivityStudy
from donod_fast.studies.sensitivity.settings import CLEAN, RANDOM
from donod_fast.studies.sensitivity.spread import ScoringSpread
from donod_fast.system.wording import plural

HAPPENS = 2.0
"""A difference counts as significant beyond this many standard errors."""


def write_sensitivity_report(out: Path, study: SensitivityStudy) -> None:
    """Write ``report.md``, ``settings.csv``, ``separation.csv``, ``spreads.csv`` and ``result.json`` into a folder.

    Raises:
        StoreError: a file cannot be written.
    """
    tables = {
        "settings": [outcome.as_row() for outcome in study.outcomes],
        "separation": [row for outcome in study.outcomes for row in outcome.separation_rows()],
        "spreads": [one.as_row() for one in study.spreads],
    }
    write_files(out, study, tables, _markdown(study))


def write_files(
    out: Path, study: DamageStudy, tables: Mapping[str, list[dict[str, Any]]], text: str, **more: Any
) -> None:
    """Write each table as CSV, ``result.json`` with all tables, base and settings, and ``report.md``.

    Raises:
        StoreError: a file cannot be written.
    """
    for name, rows in tables.items():
        write_csv(out / f"{name}.csv", rows)
    base = None if study.base is None else study.base._asdict()
    write_json(out / "result.json", {"run": study.settings, "base": base, **more, **tables})
    write_text(out / "report.md", text)


def outcome_table(outcomes: Sequence[Outcome], *, with_keep: bool = False) -> str:
    """The table of overlap, damage and held-out loss."""
    trained = any(outcome.loss is not None for outcome in outcomes)
    header = ["setting", *(["keep"] if with_keep else []), "overlap", "damaged", "tokens a row"]
    header += ["held-out loss", "against random"] if trained else []
    rows = []
    for outcome in outcomes:
        line = [label(outcome), *([f"{100 * outcome.keep:g} %"] if with_keep else [])]
        line += [_number(outcome.overlap), f"{outcome.damaged:.3f}", f"{outcome.row_tokens:.0f}"]
        if trained:
            line += ["" if outcome.loss is None else outcome.loss.text()]
            line += ["" if outcome.against_random is None else outcome.against_random.text(signed=True)]
        rows.append(line)
    return markdown_table(header, rows)


def separation_table(outcomes: Sequence[Outcome]) -> str:
    """The AUC of each ranking, by kind of damage; the interval for all kinds together."""
    ranked = [outcome for outcome in outcomes if outcome.separation.get("ranking")]
    kinds = [kind for kind in KINDS if any(outcome.ranking_auc(kind) for outcome in ranked)]
    rows = []
    for outcome in ranked:
        pooled = outcome.ranking_auc(ANY)
        cells = [_value(outcome.ranking_auc(kind)) for kind in kinds]
        rows.append([label(outcome), "" if pooled is None else pooled.text(2), *cells])
    return markdown_table(["ranking", "any damage", *(kind.replace("_", " ") for kind in kinds)], rows)


def label(outcome: Outcome) -> str:
    """The setting's name, with the axis where that says more than the name."""
    axis, name = outcome.setting.axis, outcome.setting.name
    return f"{axis} {name}" if axis in ("eps", "decay", "rate", "reduction") else name


def training_note(training: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """How each selection was trained, for a report."""
    steps = sorted({round(outcome.steps) for outcome in outcomes if outcome.steps})
    number = plural(steps[0], "step") if len(steps) == 1 else f"{steps[0]}–{steps[-1]} steps" if steps else "0 steps"
    budget = plural(training["tokens"], "token") if training["tokens"] else f"{training['epochs']:g} epochs"
    return (
        f"Each selection trained the same model on {budget} (prompts counted) in {number}, AdamW, highest rate "
        f"{training['learning_rate']:g}, cosine decay."
    )


def _markdown(study: SensitivityStudy) -> str:
    settings, base, outcomes, spreads = study.settings, study.base, study.outcomes, study.spreads
    damaged = sum(settings["damaged"].values())
    keep = settings["keep"]
    parts = [
        "# Sensitivity of the selection to what the paper leaves open\n",
        f"{plural(settings['rows'], 'row')}, {damaged} of them damaged on purpose "
        f"({', '.join(f'{count} {kind}' for kind, count in settings['damaged'].items())}), scored by "
        f"{Path(settings['model']).name}. One thing is changed at a time against the default; each setting keeps "
        f"{100 * keep:g} %.\n",
        "## What the numbers say\n",
        "".join(f"- {finding}\n" for finding in findings(outcomes, spreads)),
        "## Selections\n",
        f"Overlap: share of the kept rows that the default keeps, too (chance {keep:g}). Damaged: share of the kept "
        f"rows (chance {damaged / settings['rows']:.3f}).\n",
        outcome_table(outcomes),
    ]
    if base is not None:
        parts += [
            training_note(settings["training"], outcomes)
            + f" Untrained it has {base.text()} on {settings['heldout_rows']} held-out rows; loss in nats a scored "
            "token, ± one standard error over these rows. Against random: ± one standard error over rows (paired) "
            "and trainings (by the spread of random draws, or of selections that are all but the same). "
            f"Trainings: {settings['seeds']} of the default and the baselines, {settings['setting_seeds']} of the "
            "others; random and the clean rows were drawn again for each.\n"
        ]
    parts += [
        "## Separation\n",
        "AUC: the probability that an undamaged row ranks above a damaged one (0.5 is chance, below it damage is "
        "preferred); 95 % interval for all kinds together, the others are in `separation.csv`.\n",
        separation_table(outcomes),
        "DON and NOD (low) alone, by the same measure, all kinds together:\n",
        _columns_table(outcomes),
        "## Which column TOPSIS follows\n",
        "TOPSIS divides a column by its L2 norm, so that a column counts by how much it varies against its own size. "
        "Say of NOD: its part of the two columns' spread at equal weights (0.5 where both count alike). The last two "
        "columns: rank correlation of this DON with the default's and with SGD's.\n",
        _spread_table(spreads),
    ]
    return "\n".join(parts)


def _columns_table(outcomes: Sequence[Outcome]) -> str:
    rows, seen = [], set()
    for outcome in outcomes:
        if outcome.setting.scoring not in seen and outcome.separation:
            seen.add(outcome.setting.scoring)
            cells = [outcome.separation[score].get(ANY) for score in ("don", "nod")]
            rows.append([label(outcome), *("" if cell is None else cell.text(2) for cell in cells)])
    return markdown_table(["scoring", "DON", "NOD"], rows)


def _spread_table(spreads: Sequence[ScoringSpread]) -> str:
    header = ["scoring", "σ/μ of DON", "σ/μ of NOD", "say of NOD", "closeness with DON", "closeness with −NOD"]
    header += ["balanced weights", "DON with default's", "with SGD's"]
    rows = []
    for one in spreads:
        numbers = one.spread
        rows.append(
            [
                one.name,
                *(f"{x:.3g}" for x in (numbers.don, numbers.nod)),
                f"{numbers.nod_say:.3f}",
                *(_number(x) for x in (numbers.topsis_don, numbers.topsis_nod)),
                f"{one.balanced[0]:.3f} : {one.balanced[1]:.3f}",
                _number(one.default),
                "" if one.sgd is None else _number(one.sgd),
            ]
        )
    return markdown_table(header, rows)


def findings(outcomes: Sequence[Outcome], spreads: Sequence[ScoringSpread]) -> list[str]:
    """Sentences generated from the numbers, for or against the method."""
    found = []
    default = outcomes[0]
    compared = [one for one in outcomes[1:] if one.setting.ranked and one.setting.axis != "baseline"]
    if spreads:
        first, (don, nod) = spreads[0].spread, spreads[0].balanced
        found.append(
            f"Under the default DON varies by {first.don:.3g} of its mean, NOD by {first.nod:.3g}: at equal weights "
            f"NOD contributes {100 * first.nod_say:.1f} %, and the closeness has a rank correlation of "
            f"{first.topsis_don:.3f} with DON. Weights of {don:.3f} : {nod:.3f} would give both the same."
        )
    if compared:
        near = [label(one) for one in compared if one.overlap >= 0.9]
        far = sorted((one for one in compared if one.overlap < 0.5), key=lambda one: one.overlap)
        found.append(f"At least 90 % of the default's rows are kept by: {', '.join(near) or 'none of the settings'}.")
        if far:
            named = ", ".join(f"{label(one)} ({one.overlap:.2f})" for one in far)
            found.append(f"Less than half of them are kept by: {named}; chance is {default.keep:g}.")
    found += _separation_findings(outcomes)
    found += _loss_findings(outcomes)
    return found


def _separation_findings(outcomes: Sequence[Outcome]) -> list[str]:
    pooled = {label(one): estimate for one in outcomes if (estimate := one.ranking_auc(ANY)) is not None}
    if not pooled:
        return []
    best = max(pooled, key=lambda name: pooled[name].value)
    own = next(iter(pooled))
    worse = [name for name, estimate in pooled.items() if estimate.high < 0.5]
    unclear = [name for name, estimate in pooled.items() if estimate.low <= 0.5 <= estimate.high]
    found = [
        f"Damage of all kinds is separated best by {best}: {pooled[best].text(2)}; the default has "
        f"{pooled[own].text(2)}."
    ]
    if worse:
        found.append(f"Damage is *preferred* (AUC below 0.5, interval too) by: {', '.join(worse)}.")
    if unclear:
        found.append(f"No better than chance in sum, as far as these rows can tell: {', '.join(unclear)}.")
    return found


def _loss_findings(outcomes: Sequence[Outcome]) -> list[str]:
    measured = [(one, one.against_random) for one in outcomes if one.against_random is not None]
    if not measured or not any(one.setting.method == RANDOM for one in outcomes):
        return []
    better = [(o, d) for o, d in measured if math.isfinite(d.error) and d.value < -HAPPENS * d.error]
    worse = [(o, d) for o, d in measured if math.isfinite(d.error) and d.value > HAPPENS * d.error]
    found = []
    for group, word in ((better, "lower"), (worse, "higher")):
        if group:
            group.sort(key=lambda pair: abs(pair[1].value), reverse=True)
            named = ", ".join(f"{label(one)} ({difference.text(signed=True)})" for one, difference in group)
            found.append(f"Held-out loss {word} than random's by more than {HAPPENS:g} standard errors: {named}.")
    rest = len(measured) - len(better) - len(worse)
    found.append(
        f"For {rest} of {plural(len(measured), 'selection')} these trainings show no difference to random. Of so many "
        f"comparisons about {0.05 * len(measured):.0f} would pass {HAPPENS:g} standard errors by chance."
    )
    near = [one.loss.value for one in outcomes if one.loss is not None and one.overlap >= SAME]
    if len(set(near)) > 1:
        found.append(
            f"Selections that keep {100 * SAME:g} % or more of the default's rows differ among themselves by up to "
            f"{max(near) - min(near):.4f} in held-out loss: so much comes of a training's noise alone."
        )
    perfect = next((d for one, d in measured if one.setting.method == CLEAN), None)
    if perfect is not None:
        found.append(f"What a perfect detector of damage would gain over random here: {perfect.text(signed=True)}.")
    return found


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _value(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.2f}"


__all__ = [
    "findings",
    "label",
    "outcome_table",
    "separation_table",
    "training_note",
    "write_files",
    "write_sensitivity_report",
]
