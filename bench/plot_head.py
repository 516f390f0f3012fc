"""Draw results/head_phase.csv: time over the floor per row and shape, one panel per device and length profile.

    python bench/plot_head.py

Writes results/head_phase.png. If a row was measured more than once, the last one counts.
"""

from __future__ import annotations

import csv
from itertools import groupby

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from head_rows import FLOOR, ROWS
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from record import RESULTS
from shapes import LENGTHS, SHAPES

# Targets on an H200-class device, by length profile.
TARGETS = {
    "gsm8k": (("AdamW ≤ 3", 3.0), ("SGD ≤ 1.3", 1.3)),
    "code": (("SGD ≤ 1.3", 1.3),),
    "1000": (("AdamW ≤ 2.4", 2.4), ("SGD ≤ 1.3", 1.3)),
}
# One hue per program, light for SGD, dark for AdamW; peers in greys.
COLOURS = dict(
    zip(
        ROWS[1:],
        ("#7fb3e6", "#1b5fa8", "#f6b26b", "#c46210", "#93c47d", "#38761d", "#bdbdbd", "#8c8c8c", "#4d4d4d"),
        strict=True,
    )
)

Row = dict[str, str]


def main() -> None:
    """Draw."""
    with (RESULTS / "head_phase.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["median_ms"]]
    latest = {(r["device"], r["dtype"], r["shape"], r["tokens"], r["lengths"], r["row"]): r for r in rows}
    rows = sorted(latest.values(), key=lambda row: (row["device"], row["dtype"]))
    lines = [list(some) for _, some in groupby(rows, key=lambda row: (row["device"], row["dtype"]))]
    width = max(len({(r["shape"], r["tokens"], r["lengths"]) for r in some}) for some in lines) / len(LENGTHS)
    across = len(LENGTHS) if width <= 3 else 1  # many groups: one panel per line
    figure, panels = plt.subplots(
        len(lines) * len(LENGTHS) // across,
        across,
        figsize=(across * (2.4 + 1.4 * width), 1.2 + 3.4 * len(lines) * len(LENGTHS) / across),
        squeeze=False,
        layout="constrained",
    )
    cells = [(some, lengths) for some in lines for lengths in LENGTHS]
    for axes, (some, lengths) in zip(panels.flat, cells, strict=True):
        _panel(axes, [row for row in some if row["lengths"] == lengths], lengths)
        axes.set_title(f"{some[0]['device']}, {some[0]['dtype']}: lengths {lengths}", fontsize=10)
        axes.set_ylabel("time per token / bare logits product", fontsize=8)
    shown = [name for name in ROWS if name in COLOURS and any(row["row"] == name for row in rows)]
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in shown]
    figure.legend(handles, shown, loc="outside lower center", ncols=5, frameon=False)
    path = RESULTS / "head_phase.png"
    figure.savefig(path, dpi=110)
    print("drawn: results/" + path.name)


def _panel(axes: Axes, rows: list[Row], lengths: str) -> None:
    """Bars of one device and length profile, grouped by shape and tokens."""
    groups = sorted(
        {(row["shape"], int(row["tokens"])) for row in rows}, key=lambda group: (list(SHAPES).index(group[0]), group[1])
    )
    programs = [name for name in COLOURS if any(row["row"] == name for row in rows)]
    bar = 0.9 / max(len(programs), 1)
    for place, (shape, tokens) in enumerate(groups):
        for row in rows:
            if (row["shape"], int(row["tokens"])) != (shape, tokens) or row["row"] == FLOOR or not row["times_floor"]:
                continue
            at = place + (programs.index(row["row"]) - len(programs) / 2 + 0.5) * bar
            ratio, one = float(row["times_floor"]), float(row["times_floor"]) / float(row["median_ms"])
            spread = [[ratio - one * float(row["p20_ms"])], [one * float(row["p80_ms"]) - ratio]]
            axes.bar(at, ratio, bar, color=COLOURS[row["row"]])
            axes.errorbar(at, ratio, spread, color="black", linewidth=0.7, capsize=1.5)
            axes.text(at, (ratio + spread[1][0]) * 1.03, f"{ratio:.3g}", ha="center", va="bottom", fontsize=6.5)
    axes.set_yscale("log")
    axes.axhline(1.0, color="black", linewidth=0.8)
    for name, target in TARGETS[lengths]:
        axes.axhline(target, color="crimson", linestyle="--", linewidth=0.8)
        axes.annotate(
            name, (1.0, target), xycoords=("axes fraction", "data"), xytext=(-2, 1), textcoords="offset points",
            fontsize=7, color="crimson", ha="right", va="bottom",
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), [f"{shape}\n{tokens:,} tokens" for shape, tokens in groups], fontsize=8)
    axes.set_xlim(-0.6, max(len(groups), 1) - 0.2)
    axes.set_ylim(0.8, 1.25 * axes.get_ylim()[1])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())


if __name__ == "__main__":
    main()
