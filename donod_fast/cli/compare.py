"""``donod-fast compare``: how far the criteria of a scores folder agree, and on which rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.select import Scores
from donod_fast.errors import StoreError
from donod_fast.reports.page_options import PageOptions
from donod_fast.selection.settings import CompareOptions
from donod_fast.system.wording import plural


@from_dataclasses
def compare(
    scores: Scores,
    options: CompareOptions,
    page: PageOptions,
    out: Annotated[
        Path | None, typer.Option(help="Draw heat maps to this file: .png or .svg.", rich_help_panel="Output")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.", rich_help_panel="Output")] = False,
) -> None:
    """Show rank correlations and top-k overlaps between all number columns of SCORES, and the methods."""
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.comparison import compare_by
    from donod_fast.selection.comparison.picture import check_picture, draw_comparison
    from donod_fast.selection.comparison.tables import render

    if out is not None:
        check_picture(out)
        if out.exists() and not page.overwrite:
            raise StoreError(f"{out} exists already; give another name, or --overwrite")
    folder = ScoresFolder.open(scores)
    found = compare_by(folder, options)
    if out is not None:
        draw_comparison(found, out, title=f"{Path(folder.name).name}: {plural(found.rows, 'row')}")
    if page.html is not None:
        from donod_fast.data.record_files import refuse_inputs
        from donod_fast.reports.compare_page import comparison_page
        from donod_fast.reports.document import document_pieces
        from donod_fast.reports.shell import write_page

        refuse_inputs(folder.manifest["input"].get("inputs") or (), page.html)
        pieces = document_pieces(comparison_page(found, Path(folder.name).name))
        write_page(pieces, page.html, overwrite=page.overwrite)
    written = {name: str(path) for name, path in (("out", out), ("html", page.html)) if path is not None}
    if json:
        output.as_json({**found.as_dict(), **written})
        return
    typer.echo(render(found, shutil.get_terminal_size((100, 24)).columns))
    if written:
        typer.echo("")
    for path in written.values():
        typer.echo(f"→ {path}")


__all__ = ["compare"]
