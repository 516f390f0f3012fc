"""``donod-fast study sensitivity, ablation, noise, stability, focus``: the paper's studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.settings import ProgressSettings
from donod_fast.errors import InputError
from donod_fast.models.settings import ModelName
from donod_fast.studies.core.study_data import HeldoutData, PoolData, StudyData
from donod_fast.studies.focus.settings import FocusSettings
from donod_fast.studies.noise.settings import NoiseSettings
from donod_fast.studies.sensitivity.study_settings import AblationSettings, SensitivitySettings
from donod_fast.studies.stability.settings import StabilitySettings

if TYPE_CHECKING:
    from donod_fast.studies.core.cells import Cell

Out = Annotated[Path, typer.Option(rich_help_panel="Output", help="Folder of the study.")]
Cells = Annotated[
    Path | None,
    typer.Option(rich_help_panel="Output", help="Folder of cells that studies share.", show_default="the study's own"),
]


@from_dataclasses
def sensitivity(
    data: PoolData,
    model: ModelName,
    settings: SensitivitySettings,
    screen: ProgressSettings,
    out: Out = Path("donod-fast-sensitivity"),
    cells: Cells = None,
) -> None:
    """Compare the scoring choices that the paper leaves open: overlap, separation and held-out loss of each."""
    from donod_fast.studies.sensitivity.run import run_sensitivity

    watch = _start(model, screen)
    run_sensitivity(out, model.model, data, settings, cells=cells, on_cell=watch)
    _show(out)


@from_dataclasses
def ablation(
    data: PoolData,
    model: ModelName,
    settings: AblationSettings,
    screen: ProgressSettings,
    out: Out = Path("donod-fast-ablation"),
    cells: Cells = None,
) -> None:
    """Compare DON alone, NOD alone (both directions), weighted sum, Pareto front, TOPSIS, random and all rows.

    This is the paper's Table 5.
    """
    from donod_fast.studies.sensitivity.ablation import run_ablation

    watch = _start(model, screen)
    run_ablation(out, model.model, data, settings, cells=cells, on_cell=watch)
    _show(out)


@from_dataclasses
def noise(
    data: StudyData,
    model: ModelName,
    settings: NoiseSettings,
    screen: ProgressSettings,
    out: Out = Path("donod-fast-noise"),
) -> None:
    """Measure whether the scores detect damaged rows: overlap and separation (the paper's §4.4)."""
    from donod_fast.studies.noise.run import run_noise

    run_noise(out, model.model, data, settings, on_cell=_start(model, screen))
    _show(out)


@from_dataclasses
def stability(
    data: HeldoutData,
    model: ModelName,
    settings: StabilitySettings,
    screen: ProgressSettings,
    out: Out = Path("donod-fast-stability"),
) -> None:
    """Fine-tune on 10, 20, … 100 % of a corpus by each method; report the held-out loss (the paper's Figure 4)."""
    from donod_fast.studies.stability.run import run_stability

    run_stability(out, model.model, data, settings, on_cell=_start(model, screen))
    _show(out)


@from_dataclasses
def focus(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA", rich_help_panel="Input", help="Corpora to fine-tune on: NAME=FILE or NAME=FILE:SKIP."
        ),
    ],
    model: ModelName,
    settings: FocusSettings,
    screen: ProgressSettings,
    out: Out = Path("donod-fast-focus"),
) -> None:
    """Compare the output layer with all other layers: weight changes and scores (the paper's Figures 3, 6–11)."""
    from donod_fast.studies.focus.run import run_focus

    corpora = _corpora(data)
    run_focus(out, model.model, corpora, settings, on_cell=_start(model, screen))
    _show(out)


def _corpora(given: Sequence[str]) -> dict[str, StudyData]:
    """Corpora by name, from ``NAME=FILE`` or ``NAME=FILE:SKIP``."""
    corpora: dict[str, StudyData] = {}
    for text in given:
        name, found, place = text.partition("=")
        if not found:
            raise InputError(f"{text}: name the corpus, as in gsm8k={text}")
        file, colon, skip = place.rpartition(":")
        corpora[name] = StudyData(file, int(skip)) if colon and skip.isdigit() else StudyData(place)
    return corpora


def _start(model: ModelName, screen: ProgressSettings) -> Callable[[Cell], None] | None:
    """Announce the model; return what reports each cell."""
    output.announce_model(model.model, quiet=screen.quiet)
    return None if screen.quiet else _progress


def _progress(cell: Cell) -> None:
    typer.echo(f"{cell.kind}: {'cached' if cell.cached else f'{cell.seconds:.1f} s'}", err=True)


def _show(out: Path) -> None:
    typer.echo((out / "report.md").read_text(encoding="utf-8"))
    typer.echo(f"report: {out / 'report.md'}")
