"""``donod-fast compare``: how far the criteria of a scores folder agree, and on which rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.select import Memory, Scores
from donod_fast.errors import StoreError
from donod_fast.selection.rankers import parse_size
from donod_fast.system.wording import plural


def compare(
    scores: Scores,
    keep: Annotated[str, typer.Option(help="What each criterion selects: 0.3 or 30% of its rows, or a count.")] = "0.3",
    columns: Annotated[
        str | None,
        typer.Option(help="Methods and columns, with commas: topsis,loss@high,el2n,kmeans-ifd (default: all columns)."),
    ] = None,
    correlation: Annotated[str, typer.Option(help="spearman, or kendall (tau-b).")] = "spearman",
    sample: Annotated[int | None, typer.Option(help="Compare so many rows, drawn by --seed, instead of all.")] = None,
    seed: Annotated[int, typer.Option(help="Of --sample.")] = 0,
    embedding_model: Annotated[
        str | None, typer.Option(help="For kmeans-ifd: a sentence-transformers model (default: the column embedding).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw heat maps, too: a .png or .svg.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    memory: Memory = "2GiB",
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show rank correlations and top-k overlaps between all number columns of SCORES, and the methods."""
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.comparison import compare_folder
    from donod_fast.selection.comparison.picture import check_picture, draw_comparison
    from donod_fast.selection.comparison.tables import render
    from donod_fast.selection.keeping import parse_keep

    if out is not None:
        check_picture(out)
        if out.exists() and not overwrite:
            raise StoreError(f"{out} exists already; give another name, or --overwrite")
    folder = ScoresFolder.open(scores)
    found = compare_folder(
        folder,
        None if columns is None else [name.strip() for name in columns.split(",") if name.strip()],
        share=parse_keep(keep),
        measure=correlation,
        sample=sample,
        seed=seed,
        embedding_model=embedding_model,
        memory=parse_size(memory),
    )
    if out is not None:
        draw_comparison(found, out, title=f"{Path(folder.name).name}: {plural(found.rows, 'row')}")
    if json:
        output.as_json({**found.as_dict(), **({} if out is None else {"out": str(out)})})
        return
    typer.echo(render(found, shutil.get_terminal_size((100, 24)).columns))
    if out is not None:
        typer.echo(f"\n→ {out}")


__all__ = ["compare"]
