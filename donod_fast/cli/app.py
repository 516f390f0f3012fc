"""The application: its commands, and the conversion of errors into one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import ClassVar

import typer

from donod_fast.cli.options import HELP_NAMES, LazyCommand, LazyGroup
from donod_fast.cli.signals import Stopper
from donod_fast.cli.surroundings import error_of_surroundings
from donod_fast.errors import DonodError
from donod_fast.system.hub_retries import one_line_for_retries
from donod_fast.system.terminal import guarded_output

_COMPLETE = "_DONOD_FAST_COMPLETE"  # set by the shell that asks for completions

_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")
"""Variables that hide the progress bars of libraries, which read them when they are imported."""

INTERNAL_ERROR = 70
"""Exit code of a bug in donod_fast."""

_SCORES = "Scoring and selecting"
_FOLDERS = "Scores folders"
_MODELS = "Training and evaluation"
_CHECKS = "Checks and measurements"


def _command(name: str, panel: str, summary: str, example: str = "") -> LazyCommand:
    return LazyCommand(f"donod_fast.cli.{name}", panel, summary, example)


class Commands(LazyGroup):
    """The commands of ``donod-fast``."""

    table: ClassVar[Mapping[str, LazyCommand]] = {
        "demo": _command("demo:demo", _SCORES, "Score and select an embedded corpus with planted errors.", "demo"),
        "score": _command(
            "score:score",
            _SCORES,
            "Score every row of a corpus with a model.",
            "score train.jsonl --model Qwen/Qwen2.5-0.5B --out scores",
        ),
        "select": _command(
            "select:select",
            _SCORES,
            "Write the best rows of a scored corpus.",
            "select scores --keep 0.3 --out subset.jsonl",
        ),
        "show": _command(
            "show:show",
            _SCORES,
            "Show records as the model sees them, with the tokens that are scored.",
            "show train.jsonl --model MODEL --rows 5",
        ),
        "rank": _command(
            "select:rank_command",
            _SCORES,
            "Show the best and the worst rows.",
            "rank scores --method nod --count 10",
        ),
        "compare": _command(
            "compare:compare",
            _SCORES,
            "Show how far the criteria of a scores folder agree.",
            "compare scores --columns topsis,nod,loss --out agreement.svg",
        ),
        "report": _command(
            "report:report",
            _SCORES,
            "Write a page to look at a scored corpus, offline, in a browser.",
            "report scores --out report.html",
        ),
        "dual": _command(
            "dual:dual",
            _SCORES,
            "Select rows and parameters for a reference set (DualSFT).",
            "dual train.jsonl --model MODEL --reference target.jsonl --out dual",
        ),
        "status": _command(
            "folders:status", _FOLDERS, "Show the progress of a scores folder.", "status scores --watch 10"
        ),
        "merge": _command(
            "folders:merge_command",
            _FOLDERS,
            "Join scores folders that were made separately.",
            "merge scores-a scores-b --out scores",
        ),
        "compact": _command(
            "compacting:compact_command",
            _FOLDERS,
            "Join the small parts of a scores folder into larger ones.",
            "compact scores --part-rows 16384",
        ),
        "export": _command(
            "folders:export_command",
            _FOLDERS,
            "Write all records together with their scores.",
            "export scores --out scored.parquet",
        ),
        "train": _command(
            "train:train",
            _MODELS,
            "Fine-tune a model on a subset.",
            "train --model MODEL --data subset.jsonl --out tuned",
        ),
        "eval": _command(
            "evaluate:evaluate",
            _MODELS,
            "Measure pass@k of a model on a code benchmark.",
            "eval humaneval --model tuned --out result",
        ),
        "eval agieval": _command(
            "evaluate_harness:agieval",
            _MODELS,
            "Let a model answer AGIEval's questions (the paper's benchmark).",
            "eval agieval --problems agieval --model tuned --out result",
        ),
        "eval ifeval": _command(
            "evaluate_harness:ifeval",
            _MODELS,
            "Check which instructions of IFEval a model follows.",
            "eval ifeval --problems input_data.jsonl --model tuned --out result",
        ),
        "damoc": _command(
            "damoc:damoc",
            _MODELS,
            "Rank several models by how well they fine-tune (DaMoC).",
            "damoc models.yaml --out damoc",
        ),
        "study": _command("study:app", _MODELS, "Run studies of the method; an interrupted study resumes."),
        "check": _command(
            "check:check",
            _CHECKS,
            "Compare the scores with float64 autograd on this machine.",
            "check --model MODEL --data train.jsonl",
        ),
        "bench": _command(
            "bench:bench", _CHECKS, "Measure what scoring costs on this machine.", "bench --shape tiny --out bench"
        ),
    }


# Plain help texts: importing rich takes longer than the rest of the command line.
app = typer.Typer(
    name="donod-fast",
    cls=Commands,
    help="Score instruction-tuning data by what each sample does to a model's output layer (DON, NOD), "
    "and select what to train on.",
    no_args_is_help=True,
    add_completion=False,  # see _options
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_NAMES,
)


def _version(value: bool) -> None:
    if value:
        from donod_fast._version import __version__

        typer.echo(f"donod-fast {__version__}")
        raise typer.Exit


def _install(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> None:
    from typer._completion_classes import completion_init
    from typer.completion import install_callback

    completion_init()
    install_callback(context, parameter, value)


def _show(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> None:
    from typer._completion_classes import completion_init
    from typer.completion import show_callback

    completion_init()
    show_callback(context, parameter, value)


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
    # Typer's own options have no default, so that it imports pydantic to convert None.
    install_completion: bool = typer.Option(
        False, "--install-completion", callback=_install, is_eager=True, help="Install shell completion."
    ),
    show_completion: bool = typer.Option(
        False, "--show-completion", callback=_show, is_eager=True, help="Show the shell completion script."
    ),
) -> None:
    pass


def main(stopper: Stopper | None = None) -> int:
    """Run the command line. Returns one of the exit codes in ``donod_fast.errors``, or 130 if interrupted.

    Args:
        stopper: what answers signals; None if nothing does.
    """
    logging.basicConfig(level=logging.WARNING, format="donod-fast: %(message)s")
    if _COMPLETE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    one_line_for_retries()
    if not os.environ.get("DONOD_FAST_TRACEBACK"):
        sys.unraisablehook = lambda found: _ignored(found.exc_value)
        threading.excepthook = lambda found: _ignored(found.exc_value)
    if sys.stderr is None or not sys.stderr.isatty():
        for variable in _BARS:  # a log file has no cursor; ours are lines there
            os.environ.setdefault(variable, "1")
    try:
        app(prog_name="donod-fast")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except DonodError as error:
        return _reported(error)
    except Exception as error:
        known = error_of_surroundings(error)
        if os.environ.get("DONOD_FAST_TRACEBACK"):
            raise
        if stopper is not None and stopper.received is not None:  # a module that it interrupted cannot be imported
            print("donod-fast: error: interrupted", file=sys.stderr)
            return 130
        if known is not None:
            return _reported(known)
        # A bug in donod_fast must also end with one line.
        print(
            f"donod-fast: internal error: {type(error).__name__}: {error}\nThis is a bug in donod-fast. Please report "
            "it with the output of the same command under DONOD_FAST_TRACEBACK=1.",
            file=sys.stderr,
        )
        return INTERNAL_ERROR
    return 0


def _ignored(error: BaseException | None) -> None:
    """Report an error that nothing can handle, of a destructor or a thread, in one line."""
    if error is not None and error_of_surroundings(error) is None and not isinstance(error, KeyboardInterrupt):
        print(f"donod-fast: ignored: {type(error).__name__}: {error}", file=sys.stderr)


def _reported(error: DonodError) -> int:
    if guarded_output().failure is None:  # else that is the error to report, and it is reported at the end
        print(f"donod-fast: error: {error}", file=sys.stderr)
    return error.exit_code
