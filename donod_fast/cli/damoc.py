"""``donod-fast damoc``: choose which of several models to fine-tune, using little data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.progress import step_progress
from donod_fast.errors import ModelError

_UNITS = {"data": "step", "damoc": "model", "full": "model"}
"""Unit that each step of a run counts."""


def damoc(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A .yaml file with candidates, data and steps.", rich_help_panel="Recipe"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: report and cells.", rich_help_panel="Output")] = Path(
        "donod-fast-damoc"
    ),
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the recipe: filter.share=0.1.", rich_help_panel="Recipe"),
    ] = None,
    keep_models: Annotated[
        bool,
        typer.Option("--keep-models", help="Keep pruned and trained models in their cells.", rich_help_panel="Output"),
    ] = False,
    unsafe_exec: Annotated[
        bool,
        typer.Option(
            "--unsafe-exec",
            help="Run model-written programs even if no sandbox is available (unsafe).",
            rich_help_panel="Running",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel="Output")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print report.json.", rich_help_panel="Output")] = False,
) -> None:
    """Rank candidate models after filtering, compression, pruning and one epoch (DaMoC). Rerun to resume."""
    from donod_fast.studies.damoc.recipe import load_damoc_recipe
    from donod_fast.studies.damoc.report import data_line, remarks, table_rows
    from donod_fast.studies.damoc.run import run_damoc

    chosen = load_damoc_recipe(recipe, set or [])
    try:
        with step_progress(_UNITS, quiet=quiet or json) as progress:
            outcome = run_damoc(chosen, out, unsafe=unsafe_exec, keep_models=keep_models, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; rerun the same command to resume from the finished cells in {out}") from None
    if json:
        typer.echo(outcome.json.read_text(encoding="utf-8"), nl=False)
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
