"""The NOD–DON plane of a selection (as in the paper's figure 5): what is kept, what is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.system.files import atomic_writer

# Okabe and Ito's palette: told apart with any colour vision, and dark against light in grey
_KEPT, _DROPPED, _INK = "#0072B2", "#E69F00", "#222222"
_MARKERS = ("X", "^", "s", "D", "v", "P", "*", "h")
_FORMATS = {".png": "png", ".svg": "svg"}
_RASTER_FROM = 5_000  # points from which an SVG holds them as one picture, not as so many shapes


def draw_plane(
    don: Tensor,  # (n,) real
    nod: Tensor,  # (n,) real
    kept_mask: Tensor,  # (n,) bool
    path: Path,
    *,
    title: str = "",
    groups: Mapping[str, Tensor] | None = None,
) -> None:
    """Draw every scored sample at (NOD, DON), kept and dropped in two colours, with marginal histograms.

    Args:
        don: (n,) delta of norm, in units of ‖W‖; NaN where not scored (left out).
        nod: (n,) norm of delta, in units of ‖W‖; NaN where not scored (left out).
        kept_mask: (n,) bool, True for what the selection keeps.
        path: ends in ``.png`` or ``.svg``; an existing file is replaced.
        title: stands above the plane.
        groups: named (n,) bool masks, at most eight, each drawn with a marker of its own (in the colour of
            its fate) and counted in the legend: planted corruptions, for example.

    Raises:
        InputError: matplotlib is not installed, another suffix, shapes or dtypes that do not fit, no
            scored sample, too many groups.
        StoreError: the file cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: a figure's name must end in .png or .svg")
    groups = dict(groups or {})
    if len(groups) > len(_MARKERS):
        raise InputError(f"at most {len(_MARKERS)} groups have a marker, got {len(groups)}")
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
        raise InputError("drawing needs matplotlib: pip install donod-fast[plot]") from error

    masks = {name: mask.cpu()[scored] for name, mask in groups.items()}
    with rc_context({"font.size": 9, "svg.fonttype": "path", "axes.unicode_minus": True}):
        figure = Figure(figsize=(6.4, 5.4), layout="constrained")
        FigureCanvasAgg(figure)  # no window, whatever the user's backend is
        _draw(figure, don[scored], nod[scored], kept_mask.cpu()[scored], title, masks)
        with atomic_writer(path) as file:
            figure.savefig(file, format=_FORMATS[path.suffix.lower()], dpi=200)


def _draw(figure: Any, don: Tensor, nod: Tensor, kept: Tensor, title: str, groups: Mapping[str, Tensor]) -> None:
    grid = figure.add_gridspec(2, 2, width_ratios=(5, 1), height_ratios=(1, 5), wspace=0.02, hspace=0.02)
    plane = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=plane)
    beside = figure.add_subplot(grid[1, 1], sharey=plane)

    nod_power, don_power = _power_of_ten(nod), _power_of_ten(don)
    nod, don = nod / 10.0**nod_power, don / 10.0**don_power
    plain = torch.ones_like(kept)
    for mask in groups.values():
        plain &= ~mask

    size = max(3.0, min(16.0, 4000 / len(don) ** 0.75))
    for fate, colour, chosen, layer in (("dropped", _DROPPED, ~kept, 1), ("kept", _KEPT, kept, 2)):
        shown = chosen & plain
        plane.scatter(
            nod[shown].numpy(),
            don[shown].numpy(),
            s=size,
            c=colour,
            alpha=0.7,
            linewidths=0,
            zorder=layer,
            rasterized=len(don) >= _RASTER_FROM,
            label=f"{fate}: {int(chosen.sum()):,}",
        )
    for marker, (name, mask) in zip(_MARKERS, groups.items(), strict=False):
        colours = [_KEPT if fate else _DROPPED for fate in kept[mask].tolist()]
        kept_count, total = int((kept & mask).sum()), int(mask.sum())
        plane.scatter(
            nod[mask].numpy(),
            don[mask].numpy(),
            s=max(22.0, 1.6 * size),
            c=colours,
            marker=marker,
            edgecolors=_INK,
            linewidths=0.6,
            zorder=3,
            label=f"{name}: {total - kept_count:,} of {total:,} dropped",
        )

    plane.set_xlabel(f"NOD = ‖W − W′‖{_unit(nod_power)}")
    plane.set_ylabel(f"DON = ‖W‖ − ‖W′‖{_unit(don_power)}")
    plane.grid(color="#DDDDDD", linewidth=0.5, zorder=0)
    plane.set_axisbelow(True)
    _margin(above, nod, kept, "vertical")
    _margin(beside, don, kept, "horizontal")
    for axes in (plane, above, beside):
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10, fontweight="bold")
    _legend(figure, plane)


def _legend(figure: Any, plane: Any) -> None:
    handles, labels = plane.get_legend_handles_labels()
    handles[:2], labels[:2] = handles[1::-1], labels[1::-1]  # kept first, though it is drawn last
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8, columnspacing=2.0
    )
    for number, handle in enumerate(legend.legend_handles):
        handle.set_alpha(1.0)
        handle.set_sizes([30.0])
        if number >= 2:  # a group's colour is its fate, so its legend shows the marker alone
            handle.set_facecolor("white")


def _margin(axes: Any, values: Tensor, kept: Tensor, orientation: str) -> None:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    axes.hist(
        [values[kept].numpy(), values[~kept].numpy()],
        bins=40,
        range=(low, high),
        color=[_KEPT, _DROPPED],
        stacked=True,
        orientation=orientation,
    )
    axes.tick_params(labelbottom=False, labelleft=False, left=False, bottom=False)
    side = "left" if orientation == "vertical" else "bottom"
    axes.spines[side].set_visible(False)


def _power_of_ten(values: Tensor) -> int:
    """The power of ten to write once at the axis; 0 where plain numbers are readable."""
    largest = float(values.abs().max())
    power = int(f"{largest:e}".partition("e")[2])
    return power if largest and not -2 <= power <= 3 else 0


def _unit(power: int) -> str:
    return f"   (units of {_superscript(power)})" if power else ""


def _superscript(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
