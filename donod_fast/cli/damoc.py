"""``donod-fast damoc``: choose which of several models to fine-tune, using little data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.progress import step_progress
from donod_fast.cli.settings import CellSettings, ProgressSettings, RecipeChanges
from donod_fast.errors import ModelError

_UNITS = {"data": "step", "damoc": "model", "full": "model"}
"""Unit that each step of a run counts."""


@from_dataclasses
def damoc(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A .yaml file with candidates, data and steps.", rich_help_panel="Recipe"
        ),
    ],
    changes: RecipeChanges,
    cells: CellSettings,
    screen: ProgressSettings,
    out: Annotated[Path, typer.Option(help="Folder of the run: report and cells.", rich_help_panel="Output")] = Path(
        "donod-fast-damoc"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print report.json.", rich_help_panel="Output")] = False,
) -> None:
    """Rank candidate models after filtering, compression, pruning and one epoch (DaMoC). Rerun to resume."""
    from json import loads

    from donod_fast.studies.damoc.recipe import load_damoc_recipe
    from donod_fast.studies.damoc.report import data_line, remarks, table_rows
    from donod_fast.studies.damoc.run import run_damoc

    chosen = load_damoc_recipe(recipe, changes.set)
    try:
        with step_progress(_UNITS, quiet=screen.quiet or json) as progress:
            outcome = run_damoc(chosen, out, unsafe=cells.unsafe_exec, keep_models=cells.keep_models, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; rerun the same command to resume from the finished cells in {out}") from None
    if json:
        typer.echo(output.json_text(loads(outcome.json.read_text(encoding="utf-8")), indent=1))
    else:
        typer.echo(f"trained on {data_line(outcome.shared)}")
        typer.echo(output.table(*table_rows(outcome)))
        for line in remarks(outcome):
            typer.echo(line)
        typer.echo(f"report: {outcome.markdown}")
    if not outcome.worked:
        way = outcome.ranking[0].way
        raise ModelError(
            f"no candidate worked; the first, {outcome.ranking[0].name}, failed to {way.failed_at}: {way.reason}"
        )
