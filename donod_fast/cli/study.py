"""``donod-fast study …``: grids of score, select, train and evaluate."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import HELP_NAMES, LazyCommand, LazyGroup
from donod_fast.cli.progress import step_progress
from donod_fast.errors import InputError

_UNITS = {"score": "row", "train": "training"}
"""Unit that each step of the threshold study counts."""

_PANEL = "Studies"


def _command(name: str, summary: str, example: str) -> LazyCommand:
    return LazyCommand(f"donod_fast.cli.{name}", _PANEL, summary, f"study {example}")


class Studies(LazyGroup):
    """The commands of ``donod-fast study``."""

    table: ClassVar[Mapping[str, LazyCommand]] = {
        "threshold": _command(
            "study:threshold",
            "Effect of the kept share on pass@1: score once, then select, train and evaluate.",
            "threshold tiny-study --out study",
        ),
        "sensitivity": _command(
            "paper_studies:sensitivity",
            "Effect of choices that the paper leaves open.",
            "sensitivity train.jsonl --model MODEL --heldout test.jsonl",
        ),
        "ablation": _command(
            "paper_studies:ablation",
            "DON, NOD and their combinations against random rows (Table 5).",
            "ablation train.jsonl --model MODEL --heldout test.jsonl",
        ),
        "noise": _command(
            "paper_studies:noise", "Response of the scores to damaged rows (§4.4).", "noise train.jsonl --model MODEL"
        ),
        "stability": _command(
            "paper_studies:stability",
            "Held-out loss by kept share and method (Figure 4).",
            "stability train.jsonl --model MODEL --heldout test.jsonl",
        ),
        "focus": _command(
            "paper_studies:focus",
            "Weight changes and scores of every layer (Figures 3 and 6-11).",
            "focus gsm8k=train.jsonl --model MODEL",
        ),
    }


app = typer.Typer(
    cls=Studies,
    help="Run studies; completed cells are cached, so that an interrupted study resumes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings=HELP_NAMES,
)


@app.callback()
def _needs() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("trl", "pydantic", "yaml", "scipy", "matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise InputError(f"studies need {', '.join(missing)}: pip install 'donod-fast[study]'")


def threshold(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a packaged recipe (tiny-study, llama-2-7b-code), or a .yaml file.",
            rich_help_panel="Recipe",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the study: reports, scores, cells.", rich_help_panel="Output")
    ] = Path("donod-fast-study"),
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the recipe: study.seeds=[0,1].", rich_help_panel="Recipe"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Estimate cells, tokens, memory and hours; run nothing.", rich_help_panel="Dry run"
        ),
    ] = False,
    rows: Annotated[
        int | None,
        typer.Option(help="Rows of a corpus that is not available here, for --dry-run.", rich_help_panel="Dry run"),
    ] = None,
    row_tokens: Annotated[
        float | None, typer.Option(help="Mean tokens of its rows, for --dry-run.", rich_help_panel="Dry run")
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="Accelerator of --dry-run: a100, h100 or h200.", rich_help_panel="Dry run")
    ] = "h100",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Number of trainings in parallel.",
            min=1,
            rich_help_panel="Running",
            show_default="one per core on a CPU, one on an accelerator",
        ),
    ] = None,
    launch: Annotated[
        str,
        typer.Option(
            help="Command that starts each training: 'accelerate launch --num_processes 2'.", rich_help_panel="Running"
        ),
    ] = "",
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep the trained models in their cells.", rich_help_panel="Output")
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
    json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print the plan as JSON.", rich_help_panel="Dry run")
    ] = False,
) -> None:
    """Measure how much training a selection saves, and its effect on pass@1: score once, select, train, evaluate."""
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
        raise Interrupted(f"interrupted; rerun the same command to resume from the finished cells in {out}") from None
    typer.echo(outcome.markdown.read_text(encoding="utf-8"))
    typer.echo(f"report: {outcome.page} and {outcome.markdown}")
