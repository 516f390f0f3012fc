"""``donod-fast study …``: the grid of score, select, train, evaluate of a recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from donod_fast.cli import output, paper_studies
from donod_fast.cli.progress import step_progress
from donod_fast.cli.score import Interrupted
from donod_fast.errors import InputError

_UNITS = {"score": "row", "train": "training"}
"""What the steps of the threshold study count."""

app = typer.Typer(
    help="Studies whose cells are kept: a study that was killed goes on where it was.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _needs() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("trl", "pydantic", "yaml", "scipy", "matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise InputError(f"studies need {', '.join(missing)}: pip install 'donod-fast[study]'")


@app.command()
def threshold(
    recipe: Annotated[
        str, typer.Argument(help="A packaged recipe's name (tiny-study, llama-2-7b-code) or a .yaml file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study: reports, scores, cells.")] = Path("donod-fast-study"),
    set: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a value of the recipe: study.seeds=[0,1].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count cells, tokens, memory and hours; run nothing.")
    ] = False,
    rows: Annotated[int | None, typer.Option(help="Rows of a corpus that is not at hand, for --dry-run.")] = None,
    row_tokens: Annotated[float | None, typer.Option(help="Tokens of its mean row, for --dry-run.")] = None,
    gpu: Annotated[str, typer.Option(help="The accelerator of --dry-run: a100, h100 or h200.")] = "h100",
    jobs: Annotated[
        int | None, typer.Option(help="Trainings at once (default: one a core on a CPU, one on an accelerator).", min=1)
    ] = None,
    launch: Annotated[
        str, typer.Option(help="Start each training with this: 'accelerate launch --num_processes 2'.")
    ] = "",
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Leave the trained models in their cells.")
    ] = False,
    unsafe_exec: Annotated[
        bool, typer.Option("--unsafe-exec", help="Run model-written programs where no isolation is to be had.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as JSON.")] = False,
) -> None:
    """How much training can be saved, and what does it do to pass@1? Score once, then select, train and evaluate."""
    from donod_fast.training import load_recipe

    chosen = load_recipe(recipe, set or [])
    if dry_run:
        from donod_fast.studies.threshold.plan import plan_threshold

        plan = plan_threshold(chosen, rows=rows, row_tokens=row_tokens, gpu=gpu)
        if json:
            output.as_json(plan.as_dict())
        else:
            typer.echo(plan.text())
        return
    from donod_fast.studies.threshold.run import run_threshold

    command = shlex.join(["donod-fast", *sys.argv[1:]])
    try:
        with step_progress(_UNITS, quiet=quiet) as progress:
            outcome = run_threshold(
                chosen,
                out,
                jobs=jobs,
                unsafe=unsafe_exec,
                keep_models=keep_models,
                launch=shlex.split(launch),
                command=command,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; the same command goes on from the finished cells in {out}") from None
    typer.echo(outcome.markdown.read_text(encoding="utf-8"))
    typer.echo(f"report: {outcome.page} and {outcome.markdown}")


app.command("sensitivity")(paper_studies.sensitivity)
app.command("ablation")(paper_studies.ablation)
app.command("noise")(paper_studies.noise)
app.command("stability")(paper_studies.stability)
app.command("focus")(paper_studies.focus)
