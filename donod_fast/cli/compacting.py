"""``donod-fast compact``: fewer, larger parts in a scores folder."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from donod_fast.cli import output
from donod_fast.system.wording import plural


def compact_command(
    scores: Annotated[
        str, typer.Argument(metavar="SCORES", help="A scores folder: a path or a URL.", rich_help_panel="Input")
    ],
    part_rows: Annotated[
        int | None,
        typer.Option(
            help="Rows of a full part afterwards; by default what `score` takes for a new corpus of this size.",
            min=1,
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be joined, and change nothing.", rich_help_panel="Output")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel="Output")] = False,
) -> None:
    """Join the small parts of SCORES into larger ones, without scoring anything again."""
    from donod_fast.scores.compacting import compact
    from donod_fast.scores.folder import ScoresFolder, locked

    ScoresFolder.open(scores)  # first: no lock in a folder that holds no scores
    with nullcontext() if dry_run else locked(scores):
        found = compact(ScoresFolder.open(scores), part_rows, dry_run=dry_run)
    if json:
        facts = {"scores": found.name, "rows": found.rows, "part_rows": found.part_rows, "parts_before": found.before}
        output.as_json({**facts, "parts": found.after, "parts_absent": found.absent, "dry_run": dry_run})
        return
    if found.after == found.before:
        typer.echo(
            f"{found.name}: {plural(found.before, 'part')}, none of which can be joined to {found.part_rows:,} rows"
        )
        return
    says = "would become" if dry_run else "are now"
    typer.echo(
        f"{found.name}: {plural(found.before, 'part')} {says} {found.after:,}, of up to {found.part_rows:,} rows"
    )
    if found.absent:
        typer.echo(
            f"{found.absent:,} of them not scored yet; run `donod-fast score` on the same files to add their rows"
        )


__all__ = ["compact_command"]
