"""``donod-fast select`` and ``donod-fast rank``: from a scores folder to a subset, without the model."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import output
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.select_text import STDOUT, summary_text
from donod_fast.cli.settings import ScreenSettings, ShownRows
from donod_fast.errors import InputError
from donod_fast.selection.column_methods import BY_TOPSIS
from donod_fast.selection.filter_options import FilterOptions
from donod_fast.selection.settings import (
    BY_EMBEDDINGS,
    IN_CLUSTERS,
    KeepOptions,
    OrderOptions,
    PreferOptions,
    RankOptions,
)
from donod_fast.selection.settings.variety import NONE
from donod_fast.system.terminal import binary_output
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.selection.rankers import Engine

Scores = Annotated[
    str,
    typer.Argument(
        metavar="SCORES", help="A finished scores folder: a path, or a URL (s3://…).", rich_help_panel="Input"
    ),
]


@from_dataclasses
def select(
    scores: Scores,
    how: RankOptions,
    choice: KeepOptions,
    filters: FilterOptions,
    screen: ScreenSettings,
    shown: ShownRows,
    out: Annotated[
        Path,
        typer.Option(
            help="Subset to write: .jsonl (.gz, .zst), .json, .parquet; .csv, .tsv, .arrow, a folder from such inputs; "
            "a file at hf://datasets/ORG/NAME[@BRANCH]/…; - for stdout.",
            rich_help_panel="Output",
        ),
    ],
    tokenized: Annotated[
        Path | None,
        typer.Option(
            help="Also write the ids and labels of these rows to this folder, in input order: LLaMA-Factory "
            "(tokenized_path) and Axolotl train on them.",
            rich_help_panel="Output",
        ),
    ] = None,
    dataset_info: Annotated[
        Path | None,
        typer.Option(
            help="Add OUT to this dataset_info.json of LLaMA-Factory, proved to be read as it was scored.",
            rich_help_panel="Output",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of OUT in --dataset-info.",
            rich_help_panel="Output",
            show_default="OUT without its suffix",
        ),
    ] = None,
    sets: Annotated[
        Path | None,
        typer.Option(
            help="Also write the sets of --dedupe and --diversify, a line of JSON each: the kept row, the dropped "
            "rows, their similarity.",
            rich_help_panel="Output",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the best and the worst rows.", rich_help_panel="Output")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace OUT, SETS, the folder of tokens and the entry.", rich_help_panel="Output"
        ),
    ] = False,
) -> None:
    """Rank the rows of SCORES and write the original records of the best to OUT, unchanged."""
    from donod_fast.cli.registering import Registration
    from donod_fast.cli.token_target import check_target, write_tokens
    from donod_fast.data.record_files import refuse_existing, refuse_inputs
    from donod_fast.data.targets import refuse_target
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.choosing import choosing, keeps_one_row, refuse_no_amount
    from donod_fast.selection.hub_subset import HubSubset
    from donod_fast.selection.likeness import likeness
    from donod_fast.selection.set_files import write_sets
    from donod_fast.selection.subset import Subset, write_lines
    from donod_fast.system.hub_urls import hub_url

    method, by, lr = how.method, how.by, how.lr
    refuse_no_amount(how, choice)
    if keeps_one_row(choice) and not screen.quiet:
        typer.echo("donod-fast: --keep 1 keeps ONE row; --keep 1.0 or --keep 100% keeps all rows", err=True)
    to_stdout = str(out) == STDOUT  # records go to standard output, the summary to standard error
    target, url = str(out), hub_url(out)
    local = None if to_stdout or url is not None else out
    folder = ScoresFolder.open(scores)
    temp_dir = how.temp_dir or (None if local is None else local.absolute().parent)
    options = replace(how, temp_dir=temp_dir)
    corpus = folder.reopened()
    upload = None
    if url is not None:
        if dataset_info is not None:
            raise InputError(f"--dataset-info needs a file of this machine for its entry; {url} is on the hub")
        inputs = folder.manifest["input"].get("inputs") or ()
        upload = HubSubset.begin(url, corpus.sources, inputs, overwrite=overwrite)
    elif not to_stdout:
        refuse_target(out, overwrite, corpus.sources)  # checked before the work, and again when writing
    if sets is not None:
        if how.dedupe == NONE and how.diversify is None:
            raise InputError("--sets writes the sets of --dedupe or --diversify; give one of them")
        if str(sets) == STDOUT or sets.resolve() == out.resolve():
            raise InputError(f"--sets {sets}: give the name of a file of its own")
        refuse_inputs(folder.manifest["input"].get("inputs") or (), sets)
        refuse_existing(sets, overwrite)
    check_target(tokenized, local, overwrite=overwrite)
    registration = Registration.of(dataset_info, dataset, local, overwrite=overwrite)
    with choosing(folder, options, choice, filters) as found:
        options, ranking, kept, chosen = found.options, found.ranking, found.kept, found.before
        if to_stdout:
            stream = binary_output()
            written = Subset(write_lines(corpus, kept.rows, stream, order=choice.order))  # type: ignore[arg-type]
            stream.flush()
        elif upload is not None:
            bars = not screen.hides_progress and sys.stderr.isatty()
            written, commit = upload.write(corpus, kept.rows, choice.order, temp_dir=how.temp_dir, progress=bars)
            target = upload.upload.file.url(commit)
        else:
            written = registration.subset_file(folder, corpus, kept.rows, out, choice.order, overwrite=overwrite)
        said = [] if filters.is_empty else [f"{written.rows:,} of {chosen:,} kept rows fulfil {filters.text}"]
        said += registration.said
        if sets is not None:
            said.append(f"{plural(write_sets(folder, kept.sets, sets, overwrite=overwrite), 'set')} → {sets}")
        like = None if screen.quiet and not screen.json else likeness(folder, kept.rows)
        if tokenized is not None:
            said.append(write_tokens(scores, folder, corpus, tokenized, rows=_rising(kept.rows), overwrite=overwrite))
        summary = {
            "out": target,
            "kept": written.rows,
            **({} if filters.is_empty else {"chosen": chosen, "where": list(filters.where)}),
            "json_columns": list(written.json_columns),
            "scored": ranking.scored,
            "rows": folder.rows,
            "method": options.method,
            **({"normalise": options.normalise} if options.method in BY_TOPSIS else {}),
            "left_out": dict(ranking.left_out),
            **_following(ranking),
            "engine": ranking.name,
            **kept.as_json(),
            **registration.as_json(),
            **({} if tokenized is None else {"tokenized": str(tokenized)}),
            "update": folder.manifest["update"] if lr is None else {**folder.manifest["update"], "lr": lr},
        }
        if like is not None:
            summary |= like.as_json()
        if by is not None or method in IN_CLUSTERS:
            summary |= {"by": by or "cluster", "groups": [asdict(group) for group in kept.groups]}
        if screen.json:
            output.as_json(summary, err=to_stdout)
        elif not screen.quiet:
            typer.echo(summary_text(summary, options, kept), err=to_stdout)
            if ranking.following is not None and (followed := ranking.following.text()):
                typer.echo(followed, err=to_stdout)
            for line in said:
                typer.echo(line, err=to_stdout)
        if like is not None and not screen.hides_progress:
            for line in like.warnings:
                typer.echo(f"donod-fast: {line}", err=True)
        if explain:
            _show(ranking, corpus, shown.count, err=to_stdout)


def _rising(rows: Any) -> Iterable[int]:
    """Chosen rows in ascending order; a set of rows has it already, and one bit for each row."""
    from donod_fast.selection.out_of_core.row_set import RowSet

    return rows if isinstance(rows, RowSet) else sorted(map(int, rows))


@from_dataclasses
def rank_command(
    scores: Scores,
    how: OrderOptions,
    end: PreferOptions,
    shown: ShownRows,
    width: Annotated[
        int, typer.Option(help="Characters of text shown per row.", min=10, rich_help_panel="Output")
    ] = 80,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.", rich_help_panel="Output")] = False,
) -> None:
    """Show the best and the worst rows of SCORES, with their text and numbers."""
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.rankers import ranked

    folder = ScoresFolder.open(scores)
    if how.method in BY_EMBEDDINGS:
        raise InputError(f"method {how.method} chooses rows and does not rank them; use `donod-fast select --explain`")
    method = end.method(how.method)
    options = RankOptions(**{**_fields(how), "method": method})
    with ranked(folder, options) as ranking:
        corpus = folder.reopened()
        if json:
            rows = ranking.explain(corpus, shown.count, width, "utf-8")
            used = {"normalise": options.normalise} if method in BY_TOPSIS else {}
            output.as_json({"method": method, **used, **_following(ranking), "rows": [asdict(row) for row in rows]})
        else:
            _show(ranking, corpus, shown.count, width)
            if ranking.following is not None and (said := ranking.following.text()):
                typer.echo(said)


def _following(ranking: Engine) -> dict[str, Any]:
    return {} if ranking.following is None else {"topsis_follows": ranking.following.as_json()}


def _fields(how: OrderOptions) -> dict[str, Any]:
    return {field.name: getattr(how, field.name) for field in fields(how)}


def _show(ranking: Engine, corpus: Corpus, count: int, width: int = 80, *, err: bool = False) -> None:
    from donod_fast.selection.explain import render

    stream = sys.stderr if err else sys.stdout
    typer.echo(render(ranking.explain(corpus, count, width, stream.encoding or "ascii")), err=err)


__all__ = ["rank_command", "select"]
