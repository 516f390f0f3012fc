"""Output of the commands: aligned tables, counts, durations, progress."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from donod_fast.cli.progress import display, duration
from donod_fast.system.escaping import escaped
from donod_fast.system.wording import byte_size as size
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scoring.sample_scorer import Progress


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with the first column aligned to the left and the others to the right; a row is one line."""
    cells = [[escaped(cell).replace("\n", "\\n") for cell in row] for row in (header, *rows)]
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


def json_columns(names: Sequence[str]) -> str:
    """A line that names the columns of a Parquet file that are JSON text."""
    return f"{plural(len(names), 'column')} as JSON text, because no column type holds the values: {', '.join(names)}"


def as_json(value: Mapping[str, Any], *, err: bool = False) -> None:
    """Print a value as one JSON object on standard output, or with ``err`` on standard error."""
    typer.echo(json_text(value), err=err)


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON in printable ASCII, which the terminal's escapes leave valid."""
    return json.dumps(value, default=str, indent=indent).replace("\x7f", "\\u007f")  # the one control JSON leaves


def announce_model(name: str, revision: str | None = None, *, quiet: bool) -> None:
    """Report on standard error which model is loaded next and the size of its weights; nothing if ``quiet``."""
    if quiet:
        return
    from donod_fast.models.packaged import PACKAGED, converted_folder
    from donod_fast.models.weight_files import weights_bytes
    from donod_fast.system.places import path_of

    if name in PACKAGED and not path_of(name).exists() and converted_folder(name) is None:
        typer.echo(
            f"loading model {name} ({PACKAGED[name].title}; its package is converted once, to the cache)", err=True
        )
        return
    found = weights_bytes(name, revision)
    typer.echo(f"loading model {name} ({'size unknown' if found is None else size(found)})", err=True)


@contextmanager
def progress_bar(rows: int, *, quiet: bool) -> Iterator[Progress | None]:
    """Progress of scoring ``rows`` rows on standard error: rows, tokens per second, time left. None if ``quiet``."""
    if quiet:
        yield None
        return
    with display(quiet=False) as shown:
        began, done, tokens_done = time.monotonic(), 0, 0
        started = False

        def advance(some_rows: int, tokens: int) -> None:
            nonlocal done, tokens_done, started
            done, tokens_done = done + some_rows, tokens_done + tokens
            if not started:
                # The first call without tokens counts the rows of an earlier run.
                shown.begin("", "row", rows, 0 if tokens else done)
                started = True
            elapsed = time.monotonic() - began
            shown.reach(done, f"{tokens_done / elapsed:,.0f} tokens/s" if tokens_done and elapsed else "")

        yield advance


__all__ = [
    "announce_model",
    "as_json",
    "counts",
    "duration",
    "json_columns",
    "json_text",
    "plural",
    "progress_bar",
    "size",
    "table",
]
