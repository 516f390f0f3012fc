"""``donod-fast dual``: a subset of the data and a mask of the parameters, from one gradient interaction matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import output
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.settings import ScreenSettings
from donod_fast.data.settings import CorpusSettings, with_data
from donod_fast.models.settings import ModelSource
from donod_fast.selection.settings import DualSettings
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.selection.dual import DualOutcome


@from_dataclasses
def dual(
    corpus: CorpusSettings,
    model: ModelSource,
    settings: DualSettings,
    screen: ScreenSettings,
    reference: Annotated[
        list[str],
        typer.Option(
            help="Rows whose loss should decrease. With --order second each row of DATA costs a pass over them.",
            rich_help_panel="Input",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.", rich_help_panel="Output")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the contents of OUT.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Choose the rows of DATA and the parameters of MODEL that most lower the loss of a reference set (DualSFT)."""
    from donod_fast.data.reading.corpus import open_corpus, open_settings
    from donod_fast.models.loading import load_settings
    from donod_fast.selection.dual.run import dual as run_dual
    from donod_fast.selection.dual.run import refuse_folder

    refuse_folder(out, overwrite=overwrite)  # checked before the work, and again when writing
    candidates = open_settings(with_data(corpus, settings.masks))
    wanted = open_corpus(reference, split=corpus.split)
    output.announce_model(model.model, model.revision, quiet=screen.hides_progress)
    loaded = load_settings(model)
    with output.progress_bar(candidates.rows, quiet=screen.hides_progress) as progress:
        outcome = run_dual(loaded, candidates, wanted, out, settings, overwrite=overwrite, progress=progress)
    if screen.json:
        output.as_json(summary(outcome))
    elif not screen.quiet:
        typer.echo(summary_text(outcome))


def summary(outcome: DualOutcome) -> dict[str, Any]:
    """The summary as JSON values."""
    return {
        "out": str(outcome.out),
        "rows": outcome.rows,
        "statuses": dict(outcome.statuses),
        "kept": outcome.kept,
        "order": outcome.order,
        "reference_rows": outcome.reference_rows,
        "reference_tokens": outcome.reference_tokens,
        "reference_left_out": dict(outcome.reference_left_out),
        "reference_loss": outcome.reference_loss,
        "parameters": outcome.parameters,
        "masked": outcome.masked,
        "tensors": outcome.tensors,
    }


def summary_text(outcome: DualOutcome) -> str:
    """The summary as text: subset, mask, and the entries of the mask by parameter."""
    from donod_fast.selection.dual.run import MASK, SUBSET

    left_out = (
        f", {plural(sum(outcome.reference_left_out.values()), 'row')} left out: "
        f"{output.counts(outcome.reference_left_out)}"
        if outcome.reference_left_out
        else ""
    )
    rows = [
        (name, f"{value['entries']:,}", f"{value['masked']:,}", f"{value['importance']:+.4g}")
        for name, value in outcome.tensors.items()
    ]
    return "\n".join(
        [
            f"reference  loss {outcome.reference_loss:.4f} over {plural(outcome.reference_tokens, 'token')} of "
            f"{plural(outcome.reference_rows, 'row')}{left_out}",
            f"rows       {outcome.rows:,}: {output.counts(outcome.statuses)}",
            f"subset     {plural(outcome.kept, 'row')} by utility of {outcome.order} order → {outcome.out / SUBSET}",
            f"mask       {outcome.masked:,} of {outcome.parameters:,} entries → {outcome.out / MASK}",
            "",
            output.table(("parameter", "entries", "in the mask", "importance"), rows),
        ]
    )
