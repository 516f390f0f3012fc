"""``donod-fast select`` and ``donod-fast rank``: from a scores folder to a subset, with no model."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import output
from donod_fast.errors import InputError

if TYPE_CHECKING:
    from donod_fast.ranking import Ranking, ScoreColumns
    from donod_fast.reading import Corpus
    from donod_fast.store import ScoresFolder

_METHOD = "topsis, don, nod, weighted, pareto, nodon, don-threshold, random or loss."


def select(
    scores: Annotated[Path, typer.Argument(help="A finished scores folder.")],
    out: Annotated[Path, typer.Option(help="Subset to write: .jsonl (.gz, .zst) or .parquet.")],
    keep: Annotated[str | None, typer.Option(help="How much: 0.3 or 30% of the scored rows, or a count.")] = None,
    method: Annotated[str, typer.Option(help=_METHOD)] = "topsis",
    weights: Annotated[str, typer.Option(help="Weights of DON and NOD, as 0.5,0.5.")] = "0.5,0.5",
    don_threshold: Annotated[float | None, typer.Option(help="For don-threshold: keep DON ≥ this.")] = None,
    don_quantile: Annotated[float | None, typer.Option(help="For don-threshold: keep DON ≥ this quantile.")] = None,
    lr: Annotated[float | None, typer.Option(help="Rank as if scored at this learning rate (no model needed).")] = None,
    seed: Annotated[int, typer.Option(help="For random.")] = 0,
    order: Annotated[str, typer.Option(help="Write in input order, or best first.")] = "input",
    explain: Annotated[bool, typer.Option("--explain", help="Show the best and the worst rows.")] = False,
    count: Annotated[int, typer.Option(help="How many rows --explain shows at either end.", min=1)] = 5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Rank the rows of SCORES and write the original records of the best to OUT, unchanged."""
    from donod_fast.ranking import keep as keep_rows
    from donod_fast.ranking import parse_keep
    from donod_fast.selection import write_subset

    if order not in ("input", "best"):
        raise InputError(f"order must be input or best, got {order!r}")
    if keep is None and method != "don-threshold":
        raise InputError("say how much to keep: --keep 0.3, --keep 30% or --keep 2000")
    folder, columns, ranking = _ranked(scores, method, weights, lr, seed)
    kept = keep_rows(
        ranking,
        keep=None if keep is None else parse_keep(keep),
        don_threshold=don_threshold,
        don_quantile=don_quantile,
    )
    if len(kept) == 0:
        raise InputError(f"no row has DON ≥ {don_threshold}; the largest is {float(ranking.value.max()):.6g}")
    corpus = _corpus(folder)
    written = write_subset(corpus, kept, out, order=order, overwrite=overwrite)  # type: ignore[arg-type]
    summary = {
        "out": str(out),
        "kept": written,
        "scored": len(ranking.order),
        "rows": folder.rows,
        "method": method,
        "update": folder.manifest["update"] if lr is None else {**folder.manifest["update"], "lr": lr},
    }
    if json:
        output.as_json(summary)
    elif not quiet:
        left_out = folder.rows - len(ranking.order)
        typer.echo(
            f"{written:,} of {len(ranking.order):,} scored rows by {method} → {out}"
            + (f" ({left_out:,} rows have no score and are left out)" if left_out else "")
        )
    if explain:
        _show(ranking, columns, corpus, count)


def rank_command(
    scores: Annotated[Path, typer.Argument(help="A finished scores folder.")],
    method: Annotated[str, typer.Option(help=_METHOD)] = "topsis",
    weights: Annotated[str, typer.Option(help="Weights of DON and NOD, as 0.5,0.5.")] = "0.5,0.5",
    lr: Annotated[float | None, typer.Option(help="Rank as if scored at this learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="For random.")] = 0,
    count: Annotated[int, typer.Option(help="Rows to show at either end.", min=1)] = 5,
    width: Annotated[int, typer.Option(help="Characters of text.", min=10)] = 80,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the best and the worst rows of SCORES, text beside numbers."""
    from donod_fast.explain import best_and_worst

    folder, columns, ranking = _ranked(scores, method, weights, lr, seed)
    corpus = _corpus(folder)
    if json:
        shown = best_and_worst(ranking, columns, corpus, count, width, encoding="utf-8")
        output.as_json({"method": method, "rows": [asdict(row) for row in shown]})
    else:
        _show(ranking, columns, corpus, count, width)


def load_columns(folder: ScoresFolder, lr: float | None = None) -> ScoreColumns:
    """The columns that ranking needs, at the folder's learning rate or another.

    Raises:
        InputError: another rate is asked of scores whose update is not the same at every rate.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.ranking import ScoreColumns

    if lr is not None and folder.manifest["update"]["storage_dtype"] is not None:
        raise InputError(
            "--lr: these scores round the updated weights to a storage dtype, which is not the same at "
            "every learning rate; score again with the rate you want"
        )
    return ScoreColumns.from_table(folder.table(), weight_norm=folder.manifest["model"]["weight_norm"], lr=lr)


def _ranked(
    scores: Path, method: str, weights: str, lr: float | None, seed: int
) -> tuple[ScoresFolder, ScoreColumns, Ranking]:
    from donod_fast.ranking import rank
    from donod_fast.store import ScoresFolder

    folder = ScoresFolder.open(scores)
    columns = load_columns(folder, lr)
    return folder, columns, rank(columns, method, weights=_weights(weights), seed=seed)


def _corpus(folder: ScoresFolder) -> Corpus:
    from donod_fast.reading import reopen_corpus

    return reopen_corpus(folder.manifest["input"])


def _weights(text: str) -> tuple[float, float]:
    try:
        don, nod = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--weights must be two numbers with a comma, as 0.5,0.5; got {text!r}") from None
    return don, nod


def _show(ranking: Any, columns: Any, corpus: Any, count: int, width: int = 80) -> None:
    from donod_fast.explain import best_and_worst, render

    encoding = sys.stdout.encoding or "ascii"
    typer.echo(render(best_and_worst(ranking, columns, corpus, count, width, encoding=encoding)))
