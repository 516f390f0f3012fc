"""``donod-fast bench``: the cost of scoring on this machine, compared with other programs."""

from __future__ import annotations

import typer

from donod_fast.benchmark.settings import BenchmarkSettings
from donod_fast.cli.options import from_dataclasses


@from_dataclasses
def bench(settings: BenchmarkSettings) -> None:
    """Time scoring end to end against the bare trunk, the paper's loop and a loss-only loop. No network, no data."""
    from donod_fast.benchmark.run import run_benchmark

    run_benchmark(settings, typer.echo)
