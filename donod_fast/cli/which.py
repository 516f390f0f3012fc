"""``donod-fast study which``: the verdict on selections, on the user's own data and within a budget of time."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.settings import ProgressSettings
from donod_fast.models.settings import ModelName
from donod_fast.studies.which.settings import WhichData, WhichSettings

if TYPE_CHECKING:
    from donod_fast.studies.core.cells import Cell


@from_dataclasses
def which(
    data: WhichData,
    model: ModelName,
    settings: WhichSettings,
    screen: ProgressSettings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a probe and print the plan; train nothing.", rich_help_panel="Study")
    ] = False,
    out: Annotated[Path, typer.Option(rich_help_panel="Output", help="Folder of the study.")] = Path(
        "donod-fast-which"
    ),
) -> None:
    """Find out which selection beats random on your own data: small trainings within a budget, and a verdict in words.

    Each method is trained with at least two seeds and compared with at least five random draws, on the same held-out
    rows. Rerun the same command to resume.
    """
    from donod_fast.studies.evidence.report import CELLS
    from donod_fast.studies.which.run import prepare_which, run_which

    output.announce_model(model.model, quiet=screen.quiet)
    if dry_run:
        typer.echo(prepare_which(model.model, data, settings).text())
        return
    try:
        prepared = prepare_which(model.model, data, settings, out=out)
        if not screen.quiet:
            typer.echo(prepared.text(), err=True)
        watch = None if screen.quiet else _progress(prepared.plan.trainings)
        command = shlex.join(["donod-fast", *sys.argv[1:]])
        outcome = run_which(out, prepared, jobs=settings.jobs, command=command, on_cell=watch)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; rerun the same command to resume from the finished cells in {out}") from None
    typer.echo((out / "report.md").read_text(encoding="utf-8"))
    typer.echo(f"report: {out / 'report.md'}; a row for each training: {out / CELLS}")
    typer.echo("")
    typer.echo(outcome.verdict.text())


def _progress(trainings: int) -> Callable[[Cell], None]:
    done = 0

    def report(cell: Cell) -> None:
        nonlocal done
        took = "cached" if cell.cached else f"{cell.seconds:.1f} s"
        if cell.kind == "evidence":
            done += 1
            typer.echo(f"training {done} of at most {trainings}: {took}", err=True)
        else:
            typer.echo(f"{'scoring' if cell.kind == 'scores' else 'untrained model'}: {took}", err=True)

    return report


__all__ = ["which"]
