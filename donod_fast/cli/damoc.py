"""``donod-fast damoc``: find out on little data which of several models to fine-tune."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.errors import ModelError

if TYPE_CHECKING:
    from donod_fast.studies.damoc.run import Progress


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
        with _progress(quiet=quiet or json) as progress:
            outcome = run_damoc(chosen, out, unsafe=unsafe_exec, keep_models=keep_models, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; run the same command again to resume in {out}") from None
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


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress | None]:
    """A bar on standard error, one for each step."""
    if quiet:
        yield None
        return
    from tqdm import tqdm

    with tqdm(file=sys.stderr, dynamic_ncols=True, mininterval=0.5, unit="model") as bar:

        def advance(step: str, done: int, total: int, detail: str) -> None:
            if bar.desc != f"{step}: ":
                bar.reset(total)
                bar.set_description(step, refresh=False)
            bar.set_postfix_str(detail, refresh=False)
            bar.update(done - bar.n)

        yield advance
