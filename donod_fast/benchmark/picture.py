"""Draw the CSV file: tokens per second of every row, with one panel per device, model and corpus."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from donod_fast.benchmark.record import read_rows
from donod_fast.benchmark.table import PADDED, PAPER, RATE, ROWS, TRUNK, TRUNK_TOGETHER, program_of

PICTURE_NAME = "throughput.png"
_COLOURS = {PAPER: "#f0a35e", PADDED: "#9a9a9a", TRUNK: "#b9cfe4", TRUNK_TOGETHER: "#b9cfe4"}
_OURS = "#1b5fa8"
# Background of a text that a line would cross.
_PAPER_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}

Row = dict[str, str]


def draw(path: Path) -> str:
    """Draw the picture next to the file; returns a message. If a row was measured more than once, the last counts."""
    try:
        import matplotlib
    except ImportError:
        return "no picture: matplotlib is not installed (pip install 'donod-fast[plot]')"
    panels = _panels(read_rows(path))
    if not panels:
        return "no picture: no row has a time"
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(7.2 * across, 3.3 * down), squeeze=False, layout="constrained", dpi=120
    )
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, rows in zip(axes.flat, panels, strict=False):
        _draw_panel(panel, rows)
    picture = path.with_name(PICTURE_NAME)
    figure.savefig(picture)
    plt.close(figure)
    return f"drawn in {picture}"


def _panels(rows: list[Row]) -> list[list[Row]]:
    """Rows with a time by device, dtype, model and corpus, each panel in the table's order."""

    def place(row: Row) -> tuple[str, ...]:
        return (row["device"], row["dtype"], row["shape"], row["lengths"])

    latest = {(*place(row), row["row"]): row for row in rows}
    ordered = sorted(latest.values(), key=lambda row: (*place(row), ROWS.index(program_of(row["row"]))))
    panels = [list(some) for _, some in groupby((row for row in ordered if row["median_ms"]), key=place)]
    return [panel for panel in panels if any(row["tokens_per_s"] for row in panel)]


def _draw_panel(axes: Any, rows: list[Row]) -> None:
    shown = [row for row in rows if row["tokens_per_s"]]
    speeds = [float(row["tokens_per_s"]) for row in shown]
    # The speed at which every product runs at the measured rate: any row's speed divided by its MFU.
    ceiling = next((float(row["tokens_per_s"]) / float(row["mfu"]) for row in reversed(shown) if row["mfu"]), None)
    fastest = max(float(row["tokens_per_s"]) * float(row["median_ms"]) / float(row["p20_ms"]) for row in shown)
    right = max(1.55 * fastest, 1.1 * (ceiling or 0.0))
    for place, (row, speed) in enumerate(zip(shown, speeds, strict=True)):
        median = float(row["median_ms"])
        slow, fast = (speed * median / float(row[key]) for key in ("p80_ms", "p20_ms"))
        spread = [[max(0.0, speed - slow)], [max(0.0, fast - speed)]]
        axes.barh(place, speed, 0.72, color=_COLOURS.get(program_of(row["row"]), _OURS))
        axes.errorbar(speed, place, xerr=spread, color="black", linewidth=0.8, capsize=2)
        parts = [f"{speed:,.0f}"]
        if row["mfu"]:
            parts.append(f"MFU {100 * float(row['mfu']):.0f} %")
        if row["speed_over_paper_loop"] and program_of(row["row"]) != PAPER:
            parts.append(f"{float(row['speed_over_paper_loop']):.3g} × paper")
        beside = speed + spread[1][0] + 0.012 * right
        axes.text(beside, place, ", ".join(parts), va="center", fontsize=8, bbox=_PAPER_WHITE)
    if ceiling is not None:
        rate = float(next(row["tflops"] for row in rows if row["row"] == RATE))
        shown_rate = f"{rate:.3g} TFLOP/s" if rate >= 1 else f"{1e3 * rate:.3g} GFLOP/s"
        axes.axvline(ceiling, color="crimson", linestyle="--", linewidth=1, zorder=0)
        label = f"trunk and head at {shown_rate}"
        axes.text(ceiling, -0.62, label, color="crimson", fontsize=8, ha="center", va="bottom", bbox=_PAPER_WHITE)
    axes.set_yticks(range(len(shown)), [row["row"] for row in shown], fontsize=9)
    axes.set_ylim(len(shown) - 0.4, -1.1)
    axes.set_xlim(0, right)
    axes.set_xlabel("tokens/s", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    first = rows[0]
    title = f"{first['shape']}, {first['lengths']}, {first['dtype']}\n{first['device']}"
    axes.set_title(title, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
