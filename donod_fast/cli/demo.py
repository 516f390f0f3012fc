"""``donod-fast demo``: score, rank and select on the embedded model and corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for scores, subset and picture.")] = Path("demo-out"),
    keep: Annotated[float, typer.Option(help="Fraction to keep.", min=0.01, max=1.0)] = 0.3,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the table and its conclusion only.")] = False,
) -> None:
    """Score, rank and prune an embedded corpus with planted corruptions. Needs no network and no GPU."""
    from donod_fast.demo.run import run_demo

    run_demo(out, keep=keep, quiet=quiet)
