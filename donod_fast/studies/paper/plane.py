"""Where selected and dropped rows lie in the plane of NOD and DON (the paper's Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from donod_fast.errors import InputError
from donod_fast.selection.keeping import keep as kept_rows
from donod_fast.selection.ranking import ScoreColumns, rank

TOP = 0.2
"""Share of the rows at either end of the ranking."""


@dataclass(frozen=True)
class PlaneEnd:
    """One end of TOPSIS's ranking of a corpus.

    Attributes:
        pool: the corpus.
        model: the model that scored.
        method: ``topsis`` for the selected end, ``nodon`` for the dropped end.
        rows: number of rows.
        nod_percentile, don_percentile: mean percentile of their NOD and DON among all scored rows; 50 is the middle.
        nod_variation, don_variation: standard deviation of all rows' NOD and DON over the mean's size.
    """

    pool: str
    model: str
    method: str
    rows: int
    nod_percentile: float
    don_percentile: float
    nod_variation: float
    don_variation: float


def plane_ends(columns: ScoreColumns, *, pool: str, model: str, top: float = TOP) -> list[PlaneEnd]:
    """Both ends of the ranking of a corpus.

    Raises:
        InputError: fewer than two rows have scores.
    """
    from scipy.stats import rankdata

    there = ~(columns.don.isnan() | columns.nod.isnan())
    if int(there.sum()) < 2:
        raise InputError(f"fewer than two rows of {pool} have scores; `donod-fast score` gives the reasons")
    don, nod = columns.don[there], columns.nod[there]
    place = {row: at for at, row in enumerate(columns.row[there].tolist())}
    percentiles = [100 * (torch.from_numpy(rankdata(one.numpy())) - 0.5) / len(one) for one in (nod, don)]
    variations = [_variation(one) for one in (nod, don)]
    found = []
    for method in ("topsis", "nodon"):
        rows = [place[row] for row in kept_rows(rank(columns, method), keep=top).tolist()]
        means = [float(one[rows].mean()) for one in percentiles]
        found.append(PlaneEnd(pool, model, method, len(rows), *means, *variations))
    return found


def draw_plane(path: Path, columns: Sequence[tuple[str, ScoreColumns]], *, top: float = TOP) -> bool:
    """Draw one panel for each corpus; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(columns), figsize=(5.0 * len(columns), 4.2), layout="constrained", dpi=110, squeeze=False
    )
    panel: Any
    for (name, some), panel in zip(columns, axes[0], strict=True):
        place = {row: at for at, row in enumerate(some.row.tolist())}
        ends = {one: [place[r] for r in kept_rows(rank(some, one), keep=top).tolist()] for one in ("topsis", "nodon")}
        between = sorted(set(place.values()) - {at for rows in ends.values() for at in rows})
        for rows, label, colour in (
            (between, "between", "#bbbbbb"),
            (ends["topsis"], f"best {top:.0%} (TOPSIS)", "#1f77b4"),
            (ends["nodon"], f"worst {top:.0%} (NODON)", "#d62728"),
        ):
            panel.scatter(some.nod[rows].tolist(), some.don[rows].tolist(), s=9, color=colour, label=label)
        panel.set_xlabel("NOD")
        panel.set_ylabel("DON")
        panel.set_title(name, fontsize=10)
        panel.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return True


def _variation(column: torch.Tensor) -> float:
    mean = abs(float(column.mean()))
    return float(column.std(correction=0)) / mean if mean else float("inf")


__all__ = ["TOP", "PlaneEnd", "draw_plane", "plane_ends"]
