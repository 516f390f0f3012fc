"""``donod-fast report``: a scores folder as one page that works offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.settings import ScreenSettings
from donod_fast.reports.settings import ReportOptions
from donod_fast.system.wording import plural


@from_dataclasses
def report(
    scores: Annotated[
        str,
        typer.Argument(metavar="SCORES", help="A scores folder: a path, or a URL.", rich_help_panel="Input"),
    ],
    options: ReportOptions,
    screen: ScreenSettings,
    out: Annotated[Path, typer.Option(help="The page to write, an HTML file.", rich_help_panel="Output")],
) -> None:
    """Write one page about SCORES to look at: quality, histograms, methods, rows. It works offline, in a browser."""
    from donod_fast.reports.report import write_report
    from donod_fast.scores.folder import ScoresFolder

    done = write_report(ScoresFolder.open(scores), out, options)
    if screen.json:
        output.as_json(
            {
                "out": str(done.path),
                "bytes": done.bytes,
                "rows": done.rows,
                "scored": done.scored,
                "points": done.points,
                "texts": done.texts,
                "warnings": list(done.warnings),
            }
        )
        return
    if screen.quiet:
        return
    shown = plural(done.scored, "scored row")
    if done.points < done.scored:
        shown = f"{done.points:,} of {shown}"
    typer.echo(f"{shown}, texts of {plural(done.texts, 'row')} → {done.path} ({output.size(done.bytes)})")
    for text in done.warnings:
        typer.echo(f"note: {text}")
    typer.echo(f"open {done.path} in a browser")


__all__ = ["report"]
