"""Report of the stability study: Markdown, CSV, JSON, and a picture if matplotlib is installed."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from donod_fast.studies.core.statistics import Estimate
from donod_fast.studies.core.study_data import seed_rows_text
from donod_fast.studies.core.tables import markdown_table, write_csv, write_json, write_text
from donod_fast.studies.stability.result import StabilityResult
from donod_fast.system.wording import plural

PICTURE = "stability.png"


def write_stability_report(out: Path, result: StabilityResult) -> None:
    """Write ``report.md``, ``stability.csv``, ``result.json`` and the picture.

    Raises:
        StoreError: a file cannot be written.
    """
    rows = []
    for one in result.points:
        row: dict[str, Any] = {
            "measure": one.measure,
            "method": one.method,
            "proportion": one.proportion,
            "tokens": one.tokens,
            "damaged": one.damaged,
            "value": one.estimate.value,
            "low": one.estimate.low,
            "high": one.estimate.high,
        }
        difference = one.against_random
        for name in ("value", "low", "high"):
            row[f"minus_random_{name}"] = "" if difference is None else getattr(difference, name)
        rows.append(row)
    write_csv(out / "stability.csv", rows)
    write_json(out / "result.json", asdict(result))
    drawn = draw_stability(out / PICTURE, result)
    write_text(out / "report.md", stability_markdown(result) + (f"\n![The curves]({PICTURE})\n" if drawn else ""))


def stability_markdown(result: StabilityResult) -> str:
    """Text of the report: settings, a table for each measure, and significant differences from random."""
    settings = result.settings
    training, methods = settings["training"], list(settings["methods"])
    planted = ", ".join(f"{share:.0%} {kind}" for kind, share in settings["planted"].items())
    text = [
        "# Stability over proportions\n",
        f"Model `{settings['model']}` ({settings['dtype']}, {settings['device']}), scored by "
        f"{settings['update']['update']}; {seed_rows_text(settings)}; damaged beforehand: {planted or 'none'}. "
        f"Each selection is trained for {training['epochs']:g} epochs at {training['learning_rate']:g}, about "
        f"{plural(training['step_tokens'], 'token')} a step. Held out: "
        f"{plural(settings['heldout_rows'], 'row')} (the choice of rows alone "
        f"gives a loss a standard error of {result.heldout_error:.3f}, the same in all cells). Intervals: 95 %, "
        "Student's t over seeds.\n",
    ]
    for measure, base in result.base.items():
        some = {(one.method, one.proportion): one for one in result.points if one.measure == measure}
        text += [
            f"\n## {measure}\n",
            f"Untrained: {base:.4f}.\n",
            markdown_table(
                ["kept", *methods],
                [
                    [f"{share:.0%}", *(some[method, share].estimate.text(4) for method in methods)]
                    for share in settings["proportions"]
                ],
            ),
        ]
        others = [method for method in methods if method != "random"]
        if "random" in methods and others:
            text += [
                "Δ vs random, seed by seed; * if the interval excludes 0:\n",
                markdown_table(
                    ["kept", *others],
                    [
                        [f"{share:.0%}", *(_difference(some[method, share].against_random) for method in others)]
                        for share in settings["proportions"]
                    ],
                ),
            ]
    if planted:
        first = {(one.method, one.proportion): one for one in result.points}
        text += [
            "\n## Share of damaged rows in the selection\n",
            markdown_table(
                ["kept", *methods],
                [
                    [f"{share:.0%}", *(f"{first[method, share].damaged:.3f}" for method in methods)]
                    for share in settings["proportions"]
                ],
            ),
        ]
    return "\n".join(text)


def draw_stability(path: Path, result: StabilityResult) -> bool:
    """Draw a panel for each measure with a curve and intervals for each method; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measures, methods = list(result.base), list(result.settings["methods"])
    size = (7.0 * len(measures), 4.2)
    figure, axes = plt.subplots(1, len(measures), figsize=size, layout="constrained", dpi=110, squeeze=False)
    for measure, panel in zip(measures, axes[0], strict=True):
        for at, method in enumerate(methods):
            some = [one for one in result.points if (one.measure, one.method) == (measure, method)]
            # Shifted in x, so that intervals do not overlap.
            places = [100 * one.proportion + 0.8 * (at - (len(methods) - 1) / 2) for one in some]
            bars = [[_finite(e.value - e.low) for e in (one.estimate for one in some)]] * 2
            panel.errorbar(
                places, [one.estimate.value for one in some], yerr=bars, fmt="o-", capsize=2, markersize=4, label=method
            )
        panel.axhline(result.base[measure], color="#999999", linestyle="--", linewidth=1, label="untrained")
        panel.set_xlabel("kept, % of the rows")
        panel.set_ylabel(measure)
        panel.legend(fontsize=8)
    figure.savefig(path)
    plt.close(figure)
    return True


def _difference(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return estimate.text(4) + ("" if estimate.low <= 0 <= estimate.high else " *")


def _finite(number: float) -> float:
    """One seed has an interval without bounds: no bar is drawn."""
    return number if math.isfinite(number) else 0.0
