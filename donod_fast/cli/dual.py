"""``donod-fast dual``: a subset of the data and a mask of the parameters, from one gradient interaction matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import options, output
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.selection.dual import DualOutcome


def dual(
    data: Annotated[list[str], typer.Argument(help="Candidates: files, globs, URLs, saved datasets or a hub id.")],
    model: options.Model,
    reference: Annotated[
        list[str], typer.Option(help="Rows whose loss is to fall; second order costs a pass over them per candidate.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    layers: Annotated[
        list[str] | None,
        typer.Option(help="Linear layers by name or glob (default: the last decoder layer's and the output layer)."),
    ] = None,
    order: Annotated[str, typer.Option(help="first, or second (exact Gauss-Newton).")] = "first",
    keep: Annotated[str, typer.Option(help="The subset: 0.3 or 30% of the scored rows, or a count.")] = "0.3",
    parameters: Annotated[float, typer.Option(help="The mask: share of the entries of the chosen layers.")] = 0.1,
    lr: Annotated[float, typer.Option(help="Step size; it only weighs second order against first.")] = 0.01,
    format: Annotated[str, typer.Option(help="Format of the records.")] = "auto",
    template: Annotated[str, typer.Option(help="Chat template, as of `score`.")] = "auto",
    train_on: Annotated[str, typer.Option(help="All assistant turns, or the last only.")] = "all",
    max_length: Annotated[int | None, typer.Option(help="Cut rows to this many tokens (default: the model's).")] = None,
    split: Annotated[str, typer.Option(help="Split of a saved or hub dataset.")] = "train",
    data_revision: Annotated[str | None, typer.Option(help="Revision of a hub dataset of candidates.")] = None,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = False,
    token_budget: Annotated[int, typer.Option(help="Slots of a batch.", min=1)] = 2048,
    workspace: Annotated[int, typer.Option(help="MiB that the head mathematics may hold at once.", min=1)] = 256,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what OUT holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Choose the rows of DATA and the parameters of MODEL that lower the loss of a reference set most (DualSFT)."""
    from donod_fast.data.masking import MaskSettings
    from donod_fast.data.reading import open_corpus
    from donod_fast.models.loading import load_model
    from donod_fast.selection.dual.run import DualSettings, refuse_folder
    from donod_fast.selection.dual.run import dual as run_dual
    from donod_fast.selection.keeping import parse_keep

    settings = DualSettings(
        layers=tuple(name for given in layers or () for name in given.split(",") if name),
        order=order,
        lr=lr,
        keep=parse_keep(keep),
        parameters=parameters,
        masks=MaskSettings(format, template, train_on, max_length),
        token_budget=token_budget,
        workspace_bytes=workspace << 20,
    )
    refuse_folder(out, overwrite=overwrite)  # before the work, and again when it is written
    corpus = open_corpus(data, split=split, revision=data_revision)
    wanted = open_corpus(reference, split=split)
    output.announce_model(model, revision, quiet=quiet or json)
    loaded = load_model(model, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    with output.progress_bar(corpus.rows, quiet=quiet or json) as progress:
        outcome = run_dual(loaded, corpus, wanted, out, settings, overwrite=overwrite, progress=progress)
    if json:
        output.as_json(summary(outcome))
    elif not quiet:
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
