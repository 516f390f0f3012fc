"""``donod-fast status``, ``merge`` and ``export``: commands on whole scores folders."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.array_text import array_lines
from donod_fast.errors import InputError
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.monitoring import FolderStatus

_SHOWN_PROBLEMS = 10


def status(
    scores: Annotated[
        str, typer.Argument(metavar="SCORES", help="A scores folder: a path or a URL.", rich_help_panel="Input")
    ],
    watch: Annotated[
        float | None,
        typer.Option(help="Show the state again every so many seconds, until done.", min=0.1, rich_help_panel="Output"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.", rich_help_panel="Output")] = False,
    missing_shards: Annotated[
        int | None,
        typer.Option(
            help="Print only the options of sbatch that submit the unfinished tasks of an array of so many again; "
            "nothing if there are none.",
            min=1,
            rich_help_panel="Output",
        ),
    ] = None,
) -> None:
    """Show the progress of SCORES: rows by status, parts, speed, time left and problems."""
    from donod_fast.scores.folded import KnownSummaries
    from donod_fast.scores.monitoring import folder_status

    if missing_shards is not None:
        _submit_again(scores, missing_shards)
        return
    known = KnownSummaries()
    while True:
        found = folder_status(scores, known=known)
        if json:
            output.as_json({**asdict(found), "step": found.step.as_json(), "finished": found.finished})
        else:
            typer.echo(_text(found))
        if watch is None or found.finished:
            return
        time.sleep(watch)


def _submit_again(scores: str, count: int) -> None:
    from donod_fast.scores.array_status import submission
    from donod_fast.scores.monitoring import folder_status

    state = folder_status(scores, tasks=count).array
    if state is not None and state.to_submit:
        typer.echo(submission(count, state.to_submit))


def _text(found: FolderStatus) -> str:
    state = "running" if found.running else "finished" if found.finished else "not running"
    share = found.rows_done / found.rows if found.rows else 1.0
    lines = [
        f"{found.name}: {state}",
        f"rows     {found.rows_done:,} of {found.rows:,} ({share:.1%}): {output.counts(found.by_status) or 'none yet'}",
        f"parts    {found.parts_done:,} of {found.parts:,}, {found.parts - found.parts_done:,} left",
        f"tokens   {found.tokens:,}, of which {found.scored_tokens:,} scored",
    ]
    if found.rows_per_second is not None and found.tokens_per_second is not None:
        speed = f"{found.rows_per_second:,.1f} rows/s, {found.tokens_per_second:,.0f} tokens/s"
        if found.finished:
            speed += " at the end"
        elif found.seconds_left is not None:
            left = output.duration(found.seconds_left)
            speed += f"; about {left} left" if found.running else f"; about {left} left when it runs again"
        lines.append(f"speed    {speed}")
    if found.idle_seconds is not None and not found.finished:
        lines.append(f"last     part committed {output.duration(found.idle_seconds)} ago")
    for name, (norm, low, high) in found.constants.items():
        lines.append(f"{name.upper():8} ‖column‖ {norm:.6g}, from {low:.6g} to {high:.6g}")
    if step := found.step.line():
        lines.append(f"step     {step}")
    for name, parts in found.signals.items():
        lines.append(
            f"signal   {name}, " + ("in every part" if parts == found.parts else f"in {plural(parts, 'part')}")
        )
    if found.token_losses is not None:
        parts = found.token_losses
        where = "in every part" if parts == found.parts else f"in {plural(parts, 'part')}"
        more = "; run `donod-fast score` again to add them to the others" if parts < found.parts_done else ""
        lines.append(f"losses   of the scored tokens, {where}{more}")
    if found.array is not None:
        lines += array_lines(found.array)
    lines += [f"damaged  {text}" for text in found.damaged.values()]
    hidden = len(found.problems) - _SHOWN_PROBLEMS
    if found.problems:
        lines.append(f"problems {len(found.problems):,}" + (f", the last {_SHOWN_PROBLEMS}:" if hidden > 0 else ":"))
    for problem in found.problems[-_SHOWN_PROBLEMS:]:
        when = datetime.fromtimestamp(problem.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
        part = "" if problem.part is None else f"part {problem.part}: "
        lines.append(f"  {when} UTC  {part}{problem.text}")
    return "\n".join(lines)


def merge_command(
    scores: Annotated[
        list[str],
        typer.Argument(
            metavar="SCORES", help="Two or more scores folders, in the order of their rows.", rich_help_panel="Input"
        ),
    ],
    out: Annotated[str, typer.Option(help="The new scores folder.", rich_help_panel="Output")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.", rich_help_panel="Output")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel="Output")] = False,
) -> None:
    """Join SCORES, which were made separately with the same settings, into one folder."""
    from donod_fast.scores.folder import locked
    from donod_fast.scores.merging import merge

    with locked(out):
        folder = merge(scores, out, overwrite=overwrite)
        left = sum(not folder.has_part(part) for part in range(folder.parts))
        lacking = sum(not folder.is_committed(part) for part in range(folder.parts)) - left
        counts = folder.counts()
    summary = {"out": folder.name, "rows": folder.rows, "parts": folder.parts, "parts_left": left}
    if folder.losses.wanted:
        summary["parts_without_losses"] = lacking
    if json:
        output.as_json({**summary, "by_status": dict(counts)})
        return
    typer.echo(f"{plural(folder.rows, 'row')} of {len(scores)} folders in {folder.name}: {output.counts(counts)}")
    if left:
        typer.echo(
            f"{left:,} of {plural(folder.parts, 'part')} in none of them; run `donod-fast score` on the same "
            "files to add them"
        )
    if lacking:
        typer.echo(
            f"{lacking:,} of {plural(folder.parts, 'part')} without the losses of their tokens, because not all "
            "folders have them; run `donod-fast score` on the same files to add them"
        )


def export_command(
    scores: Annotated[str, typer.Argument(metavar="SCORES", help="A finished scores folder.", rich_help_panel="Input")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .parquet, .csv, .json or .jsonl (.gz, .zst) file; without a suffix, a datasets folder.",
            rich_help_panel="Output",
        ),
    ] = None,
    tokenized: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the ids and labels of the scored rows, which LLaMA-Factory (tokenized_path), Axolotl and "
            "score read.",
            rich_help_panel="Output",
        ),
    ] = None,
    records: Annotated[
        str, typer.Option(help="Write records as columns, or as one column of JSON (json).", rich_help_panel="Output")
    ] = "columns",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel="Output")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary.", rich_help_panel="Output")] = False,
) -> None:
    """Write every record of the corpus together with its scores, or the tokens and labels that were scored."""
    from donod_fast.cli.token_target import check_target, write_tokens
    from donod_fast.scores.exporting import export_file
    from donod_fast.scores.folder import ScoresFolder

    if out is None and tokenized is None:
        raise InputError("name what to write: --out FILE for records and scores, --tokenized FOLDER for tokens")
    folder = ScoresFolder.open(scores)
    check_target(tokenized, out, overwrite=overwrite)
    corpus = folder.reopened()
    if out is not None:
        done = export_file(folder, corpus, out, records=records, overwrite=overwrite)
        if not quiet:
            typer.echo(f"{plural(done.rows, 'row')} → {out}")
            if done.json_columns:
                typer.echo(output.json_columns(done.json_columns))
    if tokenized is not None:
        said = write_tokens(scores, folder, corpus, tokenized, overwrite=overwrite)
        if not quiet:
            typer.echo(said)
