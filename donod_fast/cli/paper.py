"""``donod-fast study paper``: the tables and figures of DONOD as one command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.settings import DryRunSettings, RecipeChanges, ScreenSettings

if TYPE_CHECKING:
    from donod_fast.studies.core.cells import Cell


@from_dataclasses
def paper(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a packaged recipe (paper-tiny, paper-smollm2, paper-llama-3.1-8b, paper-llama-2-7b-code), or "
            "a .yaml file.",
            rich_help_panel="Recipe",
        ),
    ],
    changes: RecipeChanges,
    plan: DryRunSettings,
    screen: ScreenSettings,
    out: Annotated[Path, typer.Option(help="Folder of the study: report, tables, cells.", rich_help_panel="Output")] = (
        Path("donod-fast-paper")
    ),
) -> None:
    """Repeat the paper's tables and figures: methods × shares × corpora × models, in and outside the target domain.

    The report shows the paper's numbers beside ours and says which of them are comparable. Rerun to resume.
    """
    from donod_fast.studies.paper.recipe import load_paper_recipe

    chosen = load_paper_recipe(recipe, changes.set)
    if plan.dry_run:
        from donod_fast.studies.paper.plan import plan_paper

        planned = plan_paper(chosen, gpu=plan.gpu)
        if screen.json:
            output.as_json(planned.as_dict())
        else:
            typer.echo(planned.text())
        return
    from donod_fast.studies.paper.run import run_paper

    command = shlex.join(["donod-fast", *sys.argv[1:]])
    for model in chosen.models:
        output.announce_model(model.model, quiet=screen.hides_progress)
    try:
        outcome = run_paper(chosen, out, command=command, on_cell=None if screen.hides_progress else _progress)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; rerun the same command to resume from the finished cells in {out}") from None
    if screen.json:
        output.as_json(outcome.as_dict())
    elif not screen.quiet:
        typer.echo((out / "report.md").read_text(encoding="utf-8"))
        typer.echo(f"report: {out / 'report.md'}")


def _progress(cell: Cell) -> None:
    typer.echo(f"{cell.kind}: {'cached' if cell.cached else f'{cell.seconds:.1f} s'}", err=True)
