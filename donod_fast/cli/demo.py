"""``donod-fast demo``: score, rank and select on the embedded model and corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for scores, subset and picture.", rich_help_panel="Output")] = Path(
        "demo-out"
    ),
    keep: Annotated[
        float, typer.Option(help="Fraction of the rows to keep.", min=0.01, max=1.0, rich_help_panel="Choosing")
    ] = 0.3,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the table and its conclusion only.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Score, rank and prune an embedded corpus with planted corruptions. Needs no network and no GPU."""
    from donod_fast.demo.run import run_demo

    run_demo(out, keep=keep, quiet=quiet)
