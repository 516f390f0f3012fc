"""``donod-fast study …``: grids of score, select, train and evaluate."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import HELP_NAMES, LazyCommand, LazyGroup, from_dataclasses
from donod_fast.cli.progress import step_progress
from donod_fast.cli.settings import (
    DRY_RUN,
    RUNNING,
    CellSettings,
    DryRunSettings,
    ProgressSettings,
    RecipeChanges,
)
from donod_fast.errors import InputError
from donod_fast.system.options import option

_UNITS = {"score": "row", "train": "training"}
"""Unit that each step of the threshold study counts."""

_PANEL = "Studies"


def _command(name: str, summary: str, example: str) -> LazyCommand:
    return LazyCommand(f"donod_fast.cli.{name}", _PANEL, summary, f"study {example}")


class Studies(LazyGroup):
    """The commands of ``donod-fast study``."""

    table: ClassVar[Mapping[str, LazyCommand]] = {
        "which": _command(
            "which:which",
            "Which selection beats random on your own data, within a budget of time.",
            "which data.jsonl --model MODEL --heldout test.jsonl --budget 30m",
        ),
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
        "paper": _command(
            "paper:paper",
            "All tables and figures of the paper, beside its own numbers.",
            "paper paper-tiny --dry-run",
        ),
    }


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Settings of starting trainings in the threshold study.

    Attributes:
        jobs: number of parallel trainings; None for one per core on a CPU, one on an accelerator.
        launch: command that starts each training; "" for none.
        row_report: write ``rows.html``, and link the methods in the report to it.
    """

    jobs: int | None = option(
        None,
        help="Number of trainings in parallel.",
        panel=RUNNING,
        minimum=1,
        shown="one per core on a CPU, one on an accelerator",
    )
    launch: str = option(
        "", help="Command that starts each training: 'accelerate launch --num_processes 2'.", panel=RUNNING
    )
    row_report: bool = option(
        True, help="Also write rows.html, the report of the scores; methods in the report link to it.", panel="Output"
    )


@dataclass(frozen=True, slots=True)
class PlanSettings(DryRunSettings):
    """A plan of the threshold study. See :class:`DryRunSettings`.

    Attributes:
        rows: rows of a corpus that is not available here.
        row_tokens: mean tokens of its rows.
        json: print the plan as JSON.
    """

    rows: int | None = option(None, help="Rows of a corpus that is not available here, for --dry-run.", panel=DRY_RUN)
    row_tokens: float | None = option(None, help="Mean tokens of its rows, for --dry-run.", panel=DRY_RUN)
    json: bool = option(False, help="With --dry-run: print the plan as JSON.", panel=DRY_RUN)


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


@from_dataclasses
def threshold(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a packaged recipe (tiny-study, llama-2-7b-code), or a .yaml file.",
            rich_help_panel="Recipe",
        ),
    ],
    changes: RecipeChanges,
    running: LaunchSettings,
    cells: CellSettings,
    plan: PlanSettings,
    screen: ProgressSettings,
    out: Annotated[
        Path, typer.Option(help="Folder of the study: reports, scores, cells.", rich_help_panel="Output")
    ] = Path("donod-fast-study"),
) -> None:
    """Measure how much training a selection saves, and its effect on pass@1: score once, select, train, evaluate."""
    from donod_fast.training import load_recipe

    chosen = load_recipe(recipe, changes.set)
    if plan.dry_run:
        from donod_fast.studies.threshold.plan import plan_threshold

        planned = plan_threshold(chosen, rows=plan.rows, row_tokens=plan.row_tokens, gpu=plan.gpu)
        if plan.json:
            output.as_json(planned.as_dict())
        else:
            typer.echo(planned.text())
        return
    from donod_fast.studies.threshold.run import run_threshold

    command = shlex.join(["donod-fast", *sys.argv[1:]])
    output.announce_model(*chosen.scoring_model, quiet=screen.quiet)
    try:
        with step_progress(_UNITS, quiet=screen.quiet) as progress:
            outcome = run_threshold(
                chosen,
                out,
                jobs=running.jobs,
                unsafe=cells.unsafe_exec,
                keep_models=cells.keep_models,
                launch=shlex.split(running.launch),
                command=command,
                progress=progress,
                row_report=running.row_report,
            )
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; rerun the same command to resume from the finished cells in {out}") from None
    typer.echo(outcome.markdown.read_text(encoding="utf-8"))
    typer.echo(f"report: {outcome.page} and {outcome.markdown}")
