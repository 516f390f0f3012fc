"""Curves with intervals, as SVG in the reader's colours and as PNG on white."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.errors import InputError
from donod_fast.reports.document import Picture

# Okabe and Ito's palette (distinguishable with any colour vision), readable on white and on near-black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_INK = "#010203"  # placeholder for currentColor, which matplotlib does not support
_SIZE = (7.6, 4.8)


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval; without an interval both bounds are NaN or infinite."""

    x: float
    y: float
    low: float
    high: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line, with a band if it has an interval."""

    name: str
    y: float
    low: float = math.nan
    high: float = math.nan


def curves(
    name: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    caption: str,
    levels: Sequence[Level] = (),
    x_percent: bool = False,
) -> Picture:
    """Draw one line with intervals for each series, in its order, and horizontal levels behind them.

    Points of different series are shifted slightly in x, so that their intervals do not overlap.

    Args:
        name: name of the picture's file.
        series: points by name, drawn in the order of x.
        x_label, y_label: labels of the axes.
        alt: description of the picture.
        caption: text below the picture.
        levels: horizontal reference lines.
        x_percent: x is a share, shown as a percentage.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'donod-fast[study]'") from error

    def figure(ink: str) -> Any:
        drawn = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasAgg(drawn)
        axes = drawn.add_subplot()
        _draw(axes, series, levels, ink)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if x_percent:
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        return drawn

    def settings(ink: str) -> dict[str, Any]:
        colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
        return {
            "font.size": 10,
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "legend.frameon": False,
            **dict.fromkeys(colours, ink),
        }

    svg, png = io.StringIO(), io.BytesIO()
    with rc_context(settings(_INK)):
        figure(_INK).savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    with rc_context(settings("#222222")):
        figure("#222222").savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return Picture(name, alt, caption, _inline(svg.getvalue(), name), png.getvalue())


def _draw(axes: Any, series: Mapping[str, Sequence[Point]], levels: Sequence[Level], ink: str) -> None:
    xs = [point.x for points in series.values() for point in points]
    nearest = min((b - a for a, b in zip(sorted(set(xs)), sorted(set(xs))[1:], strict=False)), default=1.0)
    step = 0.3 * nearest / max(1, len(series))
    for at, level in enumerate(levels):
        style = ("--", ":", "-.")[at % 3]
        axes.axhline(level.y, color=ink, linestyle=style, linewidth=1.2, alpha=0.75, label=level.name, zorder=1)
        if math.isfinite(level.low) and math.isfinite(level.high):
            axes.axhspan(level.low, level.high, color=ink, alpha=0.07, linewidth=0, zorder=0)
    for at, (name, points) in enumerate(series.items()):
        colour, marker = _COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)]
        ordered = sorted(points, key=lambda point: point.x)
        x = [point.x + step * (at - (len(series) - 1) / 2) for point in ordered]
        bounded = [math.isfinite(point.low) and math.isfinite(point.high) for point in ordered]
        below = [max(0.0, point.y - point.low) if good else 0.0 for point, good in zip(ordered, bounded, strict=True)]
        above = [max(0.0, point.high - point.y) if good else 0.0 for point, good in zip(ordered, bounded, strict=True)]
        axes.errorbar(
            x,
            [point.y for point in ordered],
            yerr=[below, above],
            color=colour,
            marker=marker,
            markersize=5.5,
            linewidth=1.6,
            elinewidth=1.0,
            capsize=2.5,
            label=name,
            zorder=3,
        )
        for place, point in zip(x, ordered, strict=True):
            if point.label:
                axes.annotate(point.label, (place, point.y), (4, 6), textcoords="offset points", fontsize=8)
    axes.grid(alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) + len(levels) > 1:
        axes.figure.legend(loc="outside lower center", ncols=5, fontsize=9, columnspacing=1.4, handlelength=1.8)


def _inline(svg: str, name: str) -> str:
    """The SVG for a page with several pictures: unique ids, no fixed size, and the colour of the text."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r'\s(width|height)="[0-9.]+pt"', "", drawing, count=2)
    drawing = re.sub(r"<metadata>.*?</metadata>\s*", "", drawing, flags=re.DOTALL)
    drawing = drawing.replace(_INK, "currentColor")
    drawing = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", drawing)
    ids = sorted(set(re.findall(r'\bid="([^"]+)"', drawing)), key=len, reverse=True)
    for old in ids:
        drawing = re.sub(rf'(id="|href="#|url\(#){re.escape(old)}(["\)])', rf"\g<1>{name}-{old}\2", drawing)
    return drawing.strip()


__all__ = ["Level", "Point", "curves"]
