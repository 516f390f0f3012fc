"""The NOD–DON plane of a selection (as in the paper's figure 5): which rows are kept, which are dropped.

Up to a few thousand rows are drawn as transparent points in random order, so that neither colour hides the
other. Larger sets are drawn as a density: the colour is the share of kept rows, the strength the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.system.files import atomic_writer

# Okabe and Ito's palette: distinct with any colour vision, and dark against light in grey
_KEPT, _DROPPED, _OTHERS = "#0072B2", "#E69F00", "#B8B8B8"
_FORMATS = {".png": "png", ".svg": "svg"}
_STYLE = {"font.size": 9, "svg.fonttype": "path", "axes.unicode_minus": True}
_MOST_GROUPS = 8
_PANELS_IN_A_LINE = 4
_DENSE_FROM = 3_000  # rows from which a panel shows a density instead of points
_PLANE_BINS, _PANEL_BINS = 110, 60
_TAIL = 0.001  # share of the rows at either end of an axis that may lie beyond it
_FAR = 2.0  # an axis is cut where its tails are so many times as long as the rest

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class _Points:
    """The scored rows as they are drawn: all arrays have shape (n,), the columns are in axis units."""

    nod: Numbers
    don: Numbers
    kept: Flags
    nod_range: tuple[float, float]
    don_range: tuple[float, float]

    def __len__(self) -> int:
        return len(self.nod)

    def part(self, mask: Flags) -> _Points:
        """The rows of a mask on the same axes."""
        return _Points(self.nod[mask], self.don[mask], self.kept[mask], self.nod_range, self.don_range)


def draw_plane(
    don: Tensor,  # (n,) real
    nod: Tensor,  # (n,) real
    kept_mask: Tensor,  # (n,) bool
    path: Path,
    *,
    title: str = "",
    groups: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the picture of :func:`plane_figure` to a file, whole or not at all.

    Args:
        don: see :func:`plane_figure`, as for ``nod``, ``kept_mask``, ``title`` and ``groups``.
        nod: see there.
        kept_mask: see there.
        path: ends in ``.png`` or ``.svg``; an existing file is replaced.
        title: see there.
        groups: see there.

    Raises:
        InputError: another suffix, or as :func:`plane_figure`.
        StoreError: the file cannot be written.
    """
    check_picture_name(path)
    save_figure(plane_figure(don, nod, kept_mask, title=title, groups=groups), path)


def check_picture_name(path: Path) -> None:
    """Refuse a name that does not end in ``.png`` or ``.svg``. Raises InputError."""
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: a figure's name must end in .png or .svg")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib to a file that ends in ``.png`` or ``.svg``. Raises StoreError."""
    from matplotlib import rc_context

    with rc_context(_STYLE), atomic_writer(path) as file:
        figure.savefig(file, format=_FORMATS[path.suffix.lower()], dpi=200)


def plane_figure(
    don: Tensor,  # (n,) real
    nod: Tensor,  # (n,) real
    kept_mask: Tensor,  # (n,) bool
    *,
    title: str = "",
    groups: Mapping[str, Tensor] | None = None,
) -> Any:
    """Draw every scored row at (NOD, DON), kept and dropped in two colours, with marginal histograms.

    The axes say which end is better. Rows in the far tails of a column are drawn at the edge, and their number
    is printed in the legend.

    Args:
        don: (n,) delta of norm, in units of ‖W‖; NaN where not scored (left out).
        nod: (n,) norm of delta, in units of ‖W‖; NaN where not scored (left out).
        kept_mask: (n,) bool, True for the rows that the selection keeps.
        title: printed above the plane.
        groups: named (n,) bool masks, at most eight, each drawn in a panel below the plane in front of all rows
            in grey, with the number of its dropped rows: planted corruptions, for example.

    Raises:
        InputError: matplotlib is not installed, wrong shapes or dtypes, no scored row, or too many groups.
    """
    groups = dict(groups or {})
    if len(groups) > _MOST_GROUPS:
        raise InputError(f"at most {_MOST_GROUPS} groups can be drawn, got {len(groups)}")
    for name, mask in {"kept_mask": kept_mask, **groups}.items():
        if mask.dtype != torch.bool or mask.shape != don.shape:
            raise InputError(f"{name} must be a bool mask of shape {tuple(don.shape)}")
    if don.ndim != 1 or nod.shape != don.shape:
        raise InputError(f"don and nod must have one shape (n,), got {tuple(don.shape)}, {tuple(nod.shape)}")
    don, nod = don.detach().double().cpu(), nod.detach().double().cpu()
    scored = don.isfinite() & nod.isfinite()
    if not scored.any():
        raise InputError("nothing to draw: no sample has scores")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError('drawing needs matplotlib: pip install "donod-fast[plot]"') from error

    masks = {name: mask.cpu()[scored].numpy() for name, mask in groups.items()}
    lines = -(-len(masks) // _PANELS_IN_A_LINE)
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 5.4 + 2.0 * lines), layout="constrained")
        FigureCanvasAgg(figure)  # no window, regardless of the user's backend
        _draw(figure, don[scored].numpy(), nod[scored].numpy(), kept_mask.cpu()[scored].numpy(), title, masks)
    return figure


def _draw(figure: Any, don: Numbers, nod: Numbers, kept: Flags, title: str, groups: Mapping[str, Flags]) -> None:
    nod_power, don_power = _power_of_ten(*_axis_range(nod)), _power_of_ten(*_axis_range(don))
    nod, don = nod / 10.0**nod_power, don / 10.0**don_power
    nod_range, don_range = _axis_range(nod), _axis_range(don)
    beyond = int(((nod != nod.clip(*nod_range)) | (don != don.clip(*don_range))).sum())
    points = _Points(nod.clip(*nod_range), don.clip(*don_range), kept, nod_range, don_range)

    lines = -(-len(groups) // _PANELS_IN_A_LINE)
    if lines:
        top, bottom = figure.subfigures(2, 1, height_ratios=(5.4, 2.0 * lines))
        _draw_panels(bottom, points, groups, lines)
    else:
        top = figure
    grid = top.add_gridspec(2, 2, width_ratios=(5, 1), height_ratios=(1, 5), wspace=0.02, hspace=0.02)
    plane = top.add_subplot(grid[1, 0])
    above = top.add_subplot(grid[0, 0], sharex=plane)
    beside = top.add_subplot(grid[1, 1], sharey=plane)
    _fill(plane, points, _PLANE_BINS)
    plane.set_xlabel(f"← lower is better        NOD = ‖W − W′‖{_unit(nod_power)}")
    plane.set_ylabel(f"DON = ‖W‖ − ‖W′‖{_unit(don_power)}        higher is better →")
    plane.grid(color="#DDDDDD", linewidth=0.5, zorder=0)
    plane.set_axisbelow(True)
    _margin(above, points.nod, kept, nod_range, "vertical")
    _margin(beside, points.don, kept, don_range, "horizontal")
    for axes in (plane, above, beside):
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        top.suptitle(title, fontsize=10, fontweight="bold")
    _legend(top, kept, beyond)


def _draw_panels(figure: Any, points: _Points, groups: Mapping[str, Flags], lines: int) -> None:
    """One panel a group: its rows in colour in front of all rows in grey."""
    columns = min(len(groups), _PANELS_IN_A_LINE)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (name, mask) in zip(panels.flat, groups.items(), strict=False):
        axes.set_axis_on()
        _fill(axes, points, _PANEL_BINS, grey=True)
        _fill(axes, points.part(mask), _PANEL_BINS)
        dropped = int((mask & ~points.kept).sum())
        axes.set_title(f"{name}:\n{dropped:,} of {int(mask.sum()):,} dropped", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("← NOD, lower is better", fontsize=8)
    figure.supylabel("DON, higher is better →", fontsize=8)


def _fill(axes: Any, points: _Points, bins: int, *, grey: bool = False) -> None:
    """Draw rows as points, or as a density where there are many; ``grey`` leaves out what is kept."""
    from matplotlib.colors import to_rgb

    kept, dropped = (np.array(to_rgb(_OTHERS if grey else colour)) for colour in (_KEPT, _DROPPED))
    if len(points) >= _DENSE_FROM:
        edges = [np.linspace(*_wide(limits), bins + 1) for limits in (points.nod_range, points.don_range)]
        total = np.histogram2d(points.nod, points.don, edges)[0]
        share = np.histogram2d(points.nod[points.kept], points.don[points.kept], edges)[0] / total.clip(1)
        strength = np.where(total > 0, 0.2 + 0.8 * np.log1p(total) / np.log1p(total.max()), 0.0)
        colour = (dropped + share[..., None] * (kept - dropped)).clip(0, 1)
        picture = (255 * np.dstack([colour, strength])).round().astype(np.uint8)
        axes.imshow(
            picture.transpose(1, 0, 2),
            extent=(edges[0][0], edges[0][-1], edges[1][0], edges[1][-1]),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            zorder=1 if grey else 2,
        )
        return
    order = np.random.default_rng(0).permutation(len(points))
    size = max(4.0, min(14.0, 2200 / max(1, len(points)) ** 0.75)) * (bins / _PLANE_BINS)
    axes.scatter(
        points.nod[order],
        points.don[order],
        s=size,
        c=np.where(points.kept[order, None], kept, dropped),
        alpha=0.35 if grey else 0.6,
        linewidths=0,
        zorder=1 if grey else 2,
    )
    axes.margins(0.03)


def _legend(figure: Any, kept: Flags, beyond: int) -> None:
    from matplotlib.lines import Line2D

    counts = {"kept": int(kept.sum()), "dropped": int((~kept).sum())}
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="none", label=f"{fate}: {counts[fate]:,}")
        for fate, colour in (("kept", _KEPT), ("dropped", _DROPPED))
    ]
    notes = ["stronger: more rows; mixed colour: both"] if len(kept) >= _DENSE_FROM else []
    if beyond:
        notes.append(f"rows beyond the axes, drawn at the edge: {beyond:,}")
    handles += [Line2D([], [], linestyle="none", label=note) for note in notes]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8, columnspacing=2.0)


def _margin(axes: Any, values: Numbers, kept: Flags, limits: tuple[float, float], orientation: str) -> None:
    axes.hist(
        [values[kept], values[~kept]],
        bins=40,
        range=_wide(limits),
        color=[_KEPT, _DROPPED],
        stacked=True,
        orientation=orientation,
    )
    axes.tick_params(labelbottom=False, labelleft=False, left=False, bottom=False)
    side = "left" if orientation == "vertical" else "bottom"
    axes.spines[side].set_visible(False)


def _axis_range(values: Numbers) -> tuple[float, float]:
    """The whole range, or the range without its far tails where these would squeeze all other rows."""
    low, high = float(values.min()), float(values.max())
    near, far = (float(value) for value in np.quantile(values, [_TAIL, 1 - _TAIL]))
    body = far - near
    if body > 0 and (high - low) > (1 + _FAR) * body:
        return max(low, near - 0.05 * body), min(high, far + 0.05 * body)
    return low, high


def _wide(limits: tuple[float, float]) -> tuple[float, float]:
    """The range, or a range of width 1 around a single value."""
    low, high = limits
    return (low - 0.5, high + 0.5) if low == high else limits


def _power_of_ten(low: float, high: float) -> int:
    """The power of ten to write once at the axis; 0 where plain numbers are readable."""
    largest = max(abs(low), abs(high))
    power = int(f"{largest:e}".partition("e")[2])
    return power if largest and not -2 <= power <= 3 else 0


def _unit(power: int) -> str:
    return f" (units of {_superscript(power)})" if power else ""


def _superscript(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
