"""``donod-fast bench``: what scoring costs on this machine, beside what else could be run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    shape: Annotated[
        list[str] | None,
        typer.Option(help="llama-2-7b, llama-3.1-8b, qwen2.5-7b, tiny, small; a,b for several (default: by device)."),
    ] = None,
    lengths: Annotated[list[str] | None, typer.Option(help="Lengths of the rows: gsm8k, code (default: both).")] = None,
    model: Annotated[str | None, typer.Option(help="A model of your own in their place, with --data.")] = None,
    data: Annotated[str | None, typer.Option(help="A corpus of your own, with --model.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of the corpus.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens of a random corpus (262144; 32768 on a CPU).")] = None,
    rounds: Annotated[int, typer.Option(help="Timed turns of every program.")] = 5,
    seconds: Annotated[float, typer.Option(help="No further round of a table after this long.")] = 240.0,
    loop_seconds: Annotated[float, typer.Option(help="Longest turn of the paper's loop and the padded loop.")] = 15.0,
    out: Annotated[Path, typer.Option(help="Folder of the CSV file and the picture.")] = Path("donod-fast-bench"),
    device: Annotated[str | None, typer.Option(help="Device (default: cuda if there is one, else cpu).")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Time scoring end to end against the bare trunk, the paper's loop and a loss-only loop. No network, no data."""
    from donod_fast.benchmark.run import run_benchmark
    from donod_fast.benchmark.settings import DEFAULTS, BenchmarkSettings

    settings = BenchmarkSettings(
        shapes=_names(shape),
        lengths=_names(lengths) or DEFAULTS.lengths,
        model=model,
        data=data,
        rows=rows,
        tokens=tokens,
        rounds=rounds,
        seconds=seconds,
        loop_seconds=loop_seconds,
        out=out,
        device=device,
        dtype=dtype,
    )
    run_benchmark(settings, typer.echo)


def _names(given: list[str] | None) -> tuple[str, ...]:
    return tuple(name for text in given or () for name in text.split(","))
