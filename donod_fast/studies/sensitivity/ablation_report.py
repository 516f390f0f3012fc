"""The ablation's report: Markdown with what the numbers say, CSV and JSON with the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from donod_fast.studies.sensitivity.measures import ANY
from donod_fast.studies.sensitivity.outcome import Outcome
from donod_fast.studies.sensitivity.report import (
    HAPPENS,
    label,
    outcome_table,
    separation_table,
    training_note,
    write_files,
)
from donod_fast.studies.sensitivity.result import AblationStudy
from donod_fast.studies.sensitivity.settings import ALL
from donod_fast.studies.sensitivity.spread import Spread
from donod_fast.system.wording import plural


def write_ablation_report(out: Path, study: AblationStudy) -> None:
    """Write ``report.md``, ``methods.csv``, ``separation.csv`` and ``result.json`` into a folder.

    Raises:
        StoreError: a file cannot be written.
    """
    # The separation is the same at every share, so the first share's is enough.
    first = [outcome for outcome in study.outcomes if outcome.keep == study.outcomes[0].keep]
    tables = {
        "methods": [outcome.as_row() for outcome in study.outcomes],
        "separation": [row for outcome in first for row in outcome.separation_rows()],
    }
    write_files(out, study, tables, _markdown(study, first), spread=study.spread.as_dict())


def _markdown(study: AblationStudy, first: Sequence[Outcome]) -> str:
    settings, base, outcomes, spread = study.settings, study.base, study.outcomes, study.spread
    damaged = sum(settings["damaged"].values())
    parts = [
        "# Ablation: DON, NOD and their combinations\n",
        f"{plural(settings['rows'], 'row')}, {damaged} of them damaged on purpose, scored by "
        f"{Path(settings['model']).name} with {settings['update']['update']}.\n",
        "## What the numbers say\n",
        "".join(f"- {finding}\n" for finding in findings(outcomes, spread)),
        "## Selections\n",
        "Overlap: share of the kept rows that TOPSIS keeps, too (chance is the kept share). Damaged: share of the "
        f"kept rows (chance {damaged / settings['rows']:.3f}).\n",
        outcome_table(outcomes, with_keep=True),
    ]
    if base is not None:
        parts.append(
            training_note(settings["training"], outcomes) + f" Untrained it has {base.text()} on "
            f"{settings['heldout_rows']} held-out rows, ± one standard error over these. Against random: at the same "
            "share; ± one standard error over rows (paired) and trainings (by the spread of random draws, or of "
            "selections that are all but the same).\n"
        )
    parts += [
        "## Separation\n",
        "AUC: the probability that an undamaged row ranks above a damaged one (0.5 is chance); 95 % interval for all "
        "kinds together.\n",
        separation_table(first),
    ]
    return "\n".join(parts)


def findings(outcomes: Sequence[Outcome], spread: Spread) -> list[str]:
    """Sentences generated from the numbers."""
    found = [
        f"DON varies by {spread.don:.3g} of its mean, NOD by {spread.nod:.3g}; NOD has {100 * spread.nod_say:.1f} % of "
        f"the say in TOPSIS at equal weights, whose rank correlation is {spread.topsis_don:.3f} with DON and "
        f"{spread.topsis_nod:.3f} with −NOD.".replace(" -", " −")
    ]
    pooled = [(one, auc) for one in outcomes if one.keep == outcomes[0].keep and (auc := one.ranking_auc(ANY))]
    if pooled:
        pooled.sort(key=lambda pair: pair[1].value, reverse=True)
        found.append(
            "Separation of damage, best first: " + "; ".join(f"{label(o)} {a.text(2)}" for o, a in pooled) + "."
        )
    for keep in dict.fromkeys(one.keep for one in outcomes if one.setting.method != ALL):
        lines = [(o, o.against_random) for o in outcomes if o.keep == keep and o.against_random is not None]
        named = [f"{label(o)} ({d.text(signed=True)})" for o, d in lines if abs(d.value) > HAPPENS * d.error]
        if lines:
            clear = ", ".join(named) or "none"
            found.append(
                f"At {100 * keep:g} %, held-out loss differs from random's by {HAPPENS:g} standard errors: {clear}."
            )
    return found


__all__ = ["findings", "write_ablation_report"]
