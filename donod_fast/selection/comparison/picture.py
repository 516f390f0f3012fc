"""A comparison as a picture: two heat maps side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from donod_fast.errors import InputError
from donod_fast.selection.comparison.measures import AS_IS, Comparison, Matrix
from donod_fast.system.files import atomic_writer
from donod_fast.system.wording import plural

_FORMATS = {".png": "png", ".svg": "svg"}
_NUMBERED = 22  # up to this many criteria, cells show their numbers
_MISSING = "#DDDDDD"


def check_picture(path: Path) -> None:
    """Refuse a path that :func:`draw_comparison` cannot write, before the comparison starts.

    Raises:
        InputError: matplotlib is not installed, or the suffix is not supported.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: a figure's name must end in .png or .svg")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("drawing needs matplotlib: pip install 'donod-fast[plot]'") from error


def draw_comparison(comparison: Comparison, path: Path, *, title: str = "") -> None:
    """Draw correlations and overlaps.

    Args:
        comparison: the comparison to show.
        path: ends in ``.png`` or ``.svg``; an existing file is replaced.
        title: the title of the figure.

    Raises:
        InputError: see :func:`check_picture`.
        StoreError: the file cannot be written.
    """
    check_picture(path)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    correlation_name = "Spearman's ρ" if comparison.measure == "spearman" else "Kendall's τ-b"
    share = comparison.keep
    amount = f"{100 * share:g} %" if isinstance(share, float) else plural(share, "row")
    ordered = [at for at, values in enumerate(comparison.values) if values]
    selecting = [at for at, end in enumerate(comparison.ends) if end != AS_IS]
    side = max(2.6, 0.36 * max(len(ordered), len(selecting))) + 1.6
    with rc_context({"font.size": 8, "svg.fonttype": "path"}):
        figure = Figure(figsize=(2 * side, side + 0.4), layout="constrained")
        FigureCanvasAgg(figure)  # no window, regardless of the user's backend
        left, right = figure.subplots(1, 2)
        # Both maps can be told apart with any colour vision.
        _map(left, comparison, comparison.correlation, ordered, "PuOr_r", -1.0, correlation_name)
        _map(right, comparison, comparison.overlap, selecting, "Blues", 0.0, f"overlap of the best {amount}")
        if title:
            figure.suptitle(title, fontsize=10, fontweight="bold")
        figure.supxlabel("signs aligned so that higher is better; ↓ low values are better, ? unknown", fontsize=8)
        with atomic_writer(path) as file:
            figure.savefig(file, format=_FORMATS[path.suffix.lower()], dpi=160)


def _map(
    axes: Any, comparison: Comparison, matrix: Matrix, shown: list[int], colours: str, least: float, title: str
) -> None:
    import matplotlib

    part = matrix[np.ix_(shown, shown)]
    map = matplotlib.colormaps[colours].with_extremes(bad=_MISSING)
    image = axes.imshow(np.ma.masked_invalid(part), cmap=map, vmin=least, vmax=1.0)
    labels = [comparison.names[at] + {"high": "", "low": " ↓", AS_IS: " ?"}[comparison.ends[at]] for at in shown]
    axes.set_xticks(range(len(shown)), labels, rotation=90)
    axes.set_yticks(range(len(shown)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    if len(shown) <= _NUMBERED:
        for (row, column), value in np.ndenumerate(part):
            text = "n/a" if math.isnan(value) else f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")
            # Cells at the ends of the map are dark.
            dark = not math.isnan(value) and (abs(value) > 0.6)
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "#222222")
    axes.figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)


__all__ = ["check_picture", "draw_comparison"]
