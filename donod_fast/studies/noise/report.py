"""Report of the noise study: Markdown, CSV, JSON, and a picture if matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from donod_fast.studies.core.statistics import Estimate
from donod_fast.studies.core.study_data import seed_rows_text
from donod_fast.studies.core.tables import markdown_table, write_csv, write_json, write_text
from donod_fast.studies.noise.result import NoiseResult, Separation
from donod_fast.system.wording import plural

PAPER_OVERLAP = 0.387
"""DONOD, arXiv 2504.14810, §4.4: share of the best 20 % that is still among the best after it was damaged."""

PICTURE = "noise.png"


def write_noise_report(out: Path, result: NoiseResult) -> None:
    """Write ``report.md``, ``overlap.csv``, ``separation.csv``, ``result.json`` and the picture.

    Raises:
        StoreError: a file cannot be written.
    """
    overlaps = [
        {"update": one.update, "kind": one.kind, **_columns("overlap", one.estimate)} for one in result.overlaps
    ]
    separations = [
        {
            "update": one.update,
            "kind": one.kind,
            "score": one.score,
            **_columns("auc", one.auc),
            **_columns("kept", one.kept),
        }
        for one in result.separations
    ]
    write_csv(out / "overlap.csv", overlaps)
    write_csv(out / "separation.csv", separations)
    write_json(out / "result.json", asdict(result))
    drawn = draw_noise(out / PICTURE, result)
    write_text(out / "report.md", noise_markdown(result) + (f"\n![The figures above]({PICTURE})\n" if drawn else ""))


def noise_markdown(result: NoiseResult) -> str:
    """Text of the report: settings, tables, and findings in words."""
    settings = result.settings
    updates, kinds = list(settings["updates"]), list(settings["kinds"])
    overlaps = {(one.update, one.kind): one.estimate for one in result.overlaps}
    text = [
        "# Noise robustness\n",
        f"Model `{settings['model']}` ({settings['dtype']}, {settings['device']}); {seed_rows_text(settings)}. "
        "Intervals: 95 %, Student's t over seeds, clipped to [0, 1] (no width: all seeds agree)"
        + (", or DeLong's for the AUC of a single seed.\n" if settings["seeds"] == 1 else ".\n"),
        f"\n## Overlap of the best {settings['top']:.0%} after damaging only these\n",
        f"By chance {settings['top']:.2f}; the paper reports {PAPER_OVERLAP}. A low value means that the ranking "
        "drops damaged rows.\n",
        markdown_table(
            ["damage", *updates],
            [[kind, *(overlaps[update, kind].text(2) for update in updates)] for kind in kinds],
        ),
    ]
    for update in updates:
        some = [one for one in result.separations if one.update == update]
        text += [
            f"\n## Separation, {update}\n",
            f"AUC that a clean row ranks above a damaged one ({settings['planted']:.0%} of the rows are damaged; "
            "0.5: chance, below: damage is preferred).\n",
            _by_score(kinds, some, "auc"),
            f"Share of the damaged rows that is kept at {settings['keep']:.0%} (by chance {settings['keep']:.2f}).\n",
            _by_score(kinds, some, "kept"),
            f"{_in_words(some)}\n",
        ]
    left = [f"{plural(count, 'row')} by {kind}" for kind, count in result.unchanged.items() if count]
    text.append(f"\nUnchanged by the damage (counted as clean): {', '.join(left) or 'none'}. ")
    text.append(f"Without scores: {result.unscored}.\n")
    return "\n".join(text)


def draw_noise(path: Path, result: NoiseResult) -> bool:
    """Overlaps as points with intervals, and a map of AUCs for each update; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    updates, kinds = list(result.settings["updates"]), list(result.settings["kinds"])
    down = 1 + len(updates) // 2
    size = (11.0, (1.4 + 0.4 * len(kinds)) * down)
    figure, axes = plt.subplots(down, 2, figsize=size, layout="constrained", dpi=110, squeeze=False)
    panels = list(axes.flat)
    for panel in panels[1 + len(updates) :]:
        panel.set_axis_off()
    _draw_overlaps(panels[0], result, updates, kinds)
    for panel, update in zip(panels[1:], updates, strict=False):
        _draw_separation(panel, [one for one in result.separations if one.update == update], kinds)
        panel.set_title(f"AUC, clean above damaged: {update}", fontsize=10)
    figure.savefig(path)
    plt.close(figure)
    return True


def _draw_overlaps(panel: Any, result: NoiseResult, updates: Sequence[str], kinds: Sequence[str]) -> None:
    for at, update in enumerate(updates):
        some = {one.kind: one.estimate for one in result.overlaps if one.update == update}
        places = [i + 0.18 * (at - (len(updates) - 1) / 2) for i in range(len(kinds))]
        values = [some[kind].value for kind in kinds]
        bars = [[some[k].value - some[k].low for k in kinds], [some[k].high - some[k].value for k in kinds]]
        panel.errorbar(values, places, xerr=bars, fmt="o", capsize=2, label=update)
    panel.axvline(PAPER_OVERLAP, color="#888888", linestyle="--", linewidth=1, label="the paper")
    panel.axvline(result.settings["top"], color="#bbbbbb", linestyle=":", linewidth=1, label="chance")
    panel.set_yticks(range(len(kinds)), kinds, fontsize=8)
    panel.set_ylim(len(kinds) - 0.5, -0.5)
    panel.set_xlim(-0.03, 1.03)
    panel.set_title(f"overlap of the best {result.settings['top']:.0%} after damaging them", fontsize=10)
    panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_separation(panel: Any, some: Sequence[Separation], kinds: Sequence[str]) -> None:
    scores = list(dict.fromkeys(one.score for one in some))
    value = {(one.kind, one.score): one.auc.value for one in some}
    grid = [[value[kind, score] for score in scores] for kind in kinds]
    panel.imshow(grid, vmin=0, vmax=1, cmap="RdBu", aspect="auto")
    for i, line in enumerate(grid):
        for j, number in enumerate(line):
            colour = "white" if abs(number - 0.5) > 0.32 else "black"
            panel.text(j, i, f"{number:.2f}", ha="center", va="center", fontsize=8, color=colour)
    panel.set_xticks(range(len(scores)), scores, fontsize=8)
    panel.set_yticks(range(len(kinds)), kinds, fontsize=8)


def _by_score(kinds: Sequence[str], some: Sequence[Separation], figure: str) -> str:
    scores = list(dict.fromkeys(one.score for one in some))
    value: dict[tuple[str, str], Estimate] = {(one.kind, one.score): getattr(one, figure) for one in some}
    return markdown_table(
        ["damage", *scores], [[kind, *(value[kind, score].text(2) for score in scores)] for kind in kinds]
    )


def _in_words(some: Sequence[Separation]) -> str:
    """Which score separates best, and where TOPSIS misses or prefers damage, according to the intervals."""
    sentences = []
    for kind in dict.fromkeys(one.kind for one in some):
        best = max((one for one in some if one.kind == kind), key=lambda one: one.auc.value)
        ours = next(one for one in some if one.kind == kind and one.score == "topsis")
        if ours.auc.low > 0.5:
            verdict = "avoids it"
        elif ours.auc.high < 0.5:
            verdict = "prefers it"
        else:
            verdict = "shows no significant preference"
        sentences.append(f"{kind}: TOPSIS {verdict} ({ours.auc.text(2)}); best is {best.score} ({best.auc.text(2)})")
    return "; ".join(sentences) + "."


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
