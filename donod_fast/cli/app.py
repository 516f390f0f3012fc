"""The application and its edge: where errors become one line and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from donod_fast.cli import bench, check, compare, damoc, demo, dual, evaluate, folders, score, select, study, train
from donod_fast.cli.options import PlainCommand, PlainGroup
from donod_fast.errors import DonodError

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

# Plain help texts: the typographic ones take longer to import than all the rest of the command line.
app = typer.Typer(
    name="donod-fast",
    cls=PlainGroup,
    help="Score instruction-tuning data by what each sample does to a model's output layer (DON, NOD), "
    "and select what to train on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_NAMES,
)


def _add(name: str, command: Callable[..., Any], panel: str, example: str) -> None:
    app.command(name, cls=PlainCommand, rich_help_panel=panel, epilog=f"donod-fast {name} {example}".strip())(command)


_SCORES = "Scoring and selecting"
_add("demo", demo.demo, _SCORES, "--out demo-out")
_add("score", score.score, _SCORES, "train.jsonl --model Qwen/Qwen2.5-0.5B --out scores")
_add("select", select.select, _SCORES, "scores --keep 0.3 --out subset.jsonl")
_add("rank", select.rank_command, _SCORES, "scores --method nod --count 10")
_add("compare", compare.compare, _SCORES, "scores --columns topsis,nod,loss --out agreement.svg")
_add("dual", dual.dual, _SCORES, "train.jsonl --model MODEL --reference target.jsonl --out dual")

_FOLDERS = "Scores folders"
_add("status", folders.status, _FOLDERS, "scores --watch 10")
_add("merge", folders.merge_command, _FOLDERS, "scores-a scores-b --out scores")
_add("export", folders.export_command, _FOLDERS, "scores --out scored.parquet")

_MODELS = "Training and evaluation"
_add("train", train.train, _MODELS, "--model MODEL --data subset.jsonl --out tuned")
_add("eval", evaluate.evaluate, _MODELS, "humaneval --model tuned --out result")
_add("damoc", damoc.damoc, _MODELS, "models.yaml --out damoc")
app.add_typer(study.app, name="study", rich_help_panel=_MODELS)

_CHECKS = "Checks and measurements"
_add("check", check.check, _CHECKS, "--model MODEL --data train.jsonl")
_add("bench", bench.bench, _CHECKS, "--shape tiny --out bench")


def _version(value: bool) -> None:
    if value:
        from donod_fast import __version__

        typer.echo(f"donod-fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line; exit codes are those of ``donod_fast.errors``, 130 when interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show →, a file name that is not Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="donod-fast: %(message)s")
    try:
        app()
    except DonodError as error:
        print(f"donod-fast: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:  # the last edge: a defect of ours must still end in one line
        if os.environ.get("DONOD_FAST_TRACEBACK"):
            raise
        name = type(error).__name__
        print(
            f"donod-fast: internal error: {name}: {error}\nThis is a defect of donod-fast. Please report it with "
            "the output of the same command under DONOD_FAST_TRACEBACK=1.",
            file=sys.stderr,
        )
        sys.exit(70)
