"""The application and its edge: where errors become one line and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys

import typer

from donod_fast.cli import bench, check, compare, damoc, demo, dual, evaluate, folders, score, select, study, train
from donod_fast.errors import DonodError
from donod_fast.system.hub_retries import one_line_for_retries

app = typer.Typer(
    name="donod-fast",
    help="Score instruction-tuning data by what each sample does to a model's output layer (DON, NOD), "
    "and select what to train on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("score")(score.score)
app.command("select")(select.select)
app.command("rank")(select.rank_command)
app.command("compare")(compare.compare)
app.command("dual")(dual.dual)
app.command("damoc")(damoc.damoc)
app.command("status")(folders.status)
app.command("merge")(folders.merge_command)
app.command("export")(folders.export_command)
app.command("check")(check.check)
app.command("bench")(bench.bench)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.add_typer(study.app, name="study")


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
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without →, a file name that is no Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="donod-fast: %(message)s")
    one_line_for_retries()
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
            f"donod-fast: internal error: {name}: {error}\nThis is a defect of donod-fast: please report it with "
            "the output of the same command under DONOD_FAST_TRACEBACK=1.",
            file=sys.stderr,
        )
        sys.exit(70)
