"""What the commands print: aligned tables, counts, durations, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from donod_fast.scoring.sample_scorer import Progress


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def counts(by_status: Mapping[str, int]) -> str:
    """``7,470 scored, 3 too_long``: scored first, then by number."""
    order = sorted(by_status, key=lambda name: (name != "scored", -by_status[name], name))
    return ", ".join(f"{by_status[name]:,} {name}" for name in order)


def duration(seconds: float) -> str:
    """``75 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{number / 2**20:,.0f} MiB" if number < 2**30 else f"{number / 2**30:,.1f} GiB"


def as_json(value: Mapping[str, Any]) -> None:
    """Print a value as one JSON object on standard output."""
    typer.echo(json.dumps(value, default=str))


@contextmanager
def progress_bar(rows: int, *, quiet: bool) -> Iterator[Progress | None]:
    """A bar on standard error: rows done, tokens per second, time left. None where it is not wanted."""
    if quiet:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=rows, unit="row", file=sys.stderr, dynamic_ncols=True, mininterval=0.5, delay=0.5) as bar:
        done = 0

        def advance(some_rows: int, tokens: int) -> None:
            nonlocal done
            if some_rows and not tokens and bar.n == 0:
                bar.initial = some_rows  # rows of an earlier run: no part of this one's speed
            done += tokens
            elapsed = bar.format_dict["elapsed"]
            if elapsed:
                bar.set_postfix_str(f"{done / elapsed:,.0f} tokens/s", refresh=False)
            bar.update(some_rows)

        yield advance
