"""``donod-fast select`` and ``donod-fast rank``: from a scores folder to a subset, without the model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import output
from donod_fast.errors import InputError
from donod_fast.selection.column_methods import ENDS
from donod_fast.selection.rankers import KMEANS_IFD, Engine, Kept, RankOptions, load_columns, parse_size, ranked
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.selection.out_of_core import GroupCount

_METHODS = (
    "topsis, don, nod, weighted, pareto, nodon, don-threshold, random, loss; any number column of SCORES; ifd, ifd-loss"
)
_SHOWN_GROUPS = 20
STDOUT = "-"
"""The name of standard output."""

Scores = Annotated[str, typer.Argument(help="A finished scores folder: a path, or a URL (s3://...).")]
EngineName = Annotated[str, typer.Option(help="memory, duckdb (past memory), or auto: by what --memory holds.")]
Memory = Annotated[str, typer.Option(help="What ranking may take of memory, as 2GiB.")]
Prefer = Annotated[str | None, typer.Option(help="Of a column: high or low values first (default: its better end).")]


def select(
    scores: Scores,
    out: Annotated[Path, typer.Option(help="Subset to write: .jsonl (.gz, .zst) or .parquet; - for standard output.")],
    keep: Annotated[
        str | None, typer.Option(help="How much: 0.3 or 30% of the ranked rows, or a count (kmeans-ifd: 0.4).")
    ] = None,
    method: Annotated[str, typer.Option(help=f"{_METHODS} (rows with IFD ≥ 1 left out); kmeans-ifd.")] = "topsis",
    prefer: Prefer = None,
    by: Annotated[
        str | None, typer.Option(help="Keep a share of each group: a column that `score --carry` took along, or file.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Weights of DON and NOD, as 0.5,0.5.")] = "0.5,0.5",
    don_threshold: Annotated[float | None, typer.Option(help="For don-threshold: keep DON ≥ this.")] = None,
    don_quantile: Annotated[float | None, typer.Option(help="For don-threshold: keep DON ≥ this quantile.")] = None,
    lr: Annotated[float | None, typer.Option(help="Rank as if scored at this learning rate (no model needed).")] = None,
    seed: Annotated[int, typer.Option(help="For random.")] = 0,
    clusters: Annotated[int, typer.Option(help="For kmeans-ifd: how many.", min=1)] = 10,
    embedding_model: Annotated[
        str | None,
        typer.Option(help="For kmeans-ifd: a sentence-transformers model (default: the column embedding)."),
    ] = None,
    order: Annotated[str, typer.Option(help="Write in input order, or best first.")] = "input",
    explain: Annotated[bool, typer.Option("--explain", help="Show the best and the worst rows.")] = False,
    count: Annotated[int, typer.Option(help="How many rows --explain shows at either end.", min=1)] = 5,
    engine: EngineName = "auto",
    memory: Memory = "2GiB",
    temp_dir: Annotated[
        Path | None, typer.Option(help="For what does not fit in memory (default: the folder of OUT).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Rank the rows of SCORES and write the original records of the best to OUT, unchanged."""
    from donod_fast.data.record_files import refuse_target
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.keeping import parse_keep
    from donod_fast.selection.subset import write_lines, write_subset

    if order not in ("input", "best"):
        raise InputError(f"order must be input or best, got {order!r}")
    if keep is None and method not in ("don-threshold", KMEANS_IFD):
        raise InputError("say how much to keep: --keep 0.3, --keep 30% or --keep 2000")
    if embedding_model is not None and method != KMEANS_IFD:
        raise InputError(f"--embedding-model is for --method {KMEANS_IFD}, which embeds the questions; got {method}")
    wanted = None if keep is None else parse_keep(keep)
    if keep is not None and keep.strip() == "1" and not quiet:
        typer.echo("donod-fast: --keep 1 keeps ONE row; --keep 1.0 or --keep 100% keeps all rows", err=True)
    to_stdout = str(out) == STDOUT  # the records go there, and what we say to standard error
    folder = ScoresFolder.open(scores)
    options = RankOptions(
        with_end(method, prefer),
        _weights(weights),
        lr,
        seed,
        by,
        engine,
        parse_size(memory),
        temp_dir or (None if to_stdout else out.absolute().parent),
        clusters,
        embedding_model,
    )
    if not to_stdout:
        refuse_target(out, overwrite)  # before the work; writing checks it again
    with ranked(folder, options) as ranking:
        kept = ranking.keep(wanted, don_threshold, don_quantile, order == "best")
        if len(kept.rows) == 0:
            raise InputError(f"no row has DON ≥ {don_threshold}; the largest is {ranking.highest:.6g}")
        corpus = folder.reopened()
        if to_stdout:
            written = write_lines(corpus, kept.rows, sys.stdout.buffer, order=order)  # type: ignore[arg-type]
            sys.stdout.buffer.flush()
        else:
            written = write_subset(corpus, kept.rows, out, order=order, overwrite=overwrite)  # type: ignore[arg-type]
        summary = {
            "out": str(out),
            "kept": written,
            "scored": ranking.scored,
            "rows": folder.rows,
            "method": options.method,
            "left_out": dict(ranking.left_out),
            "engine": ranking.name,
            "update": folder.manifest["update"] if lr is None else {**folder.manifest["update"], "lr": lr},
        }
        if by is not None or method == KMEANS_IFD:
            summary |= {"by": by or "cluster", "groups": [asdict(group) for group in kept.groups]}
        if json:
            output.as_json(summary, err=to_stdout)
        elif not quiet:
            typer.echo(_summary_text(summary, options, kept), err=to_stdout)
        if explain:
            _show(ranking, corpus, count, err=to_stdout)


def _summary_text(summary: Mapping[str, Any], options: RankOptions, kept: Kept) -> str:
    """What was kept and what was left out, and a table of the groups if there are any."""
    left_out: Mapping[str, int] = summary["left_out"]
    without = summary["rows"] - summary["scored"] - sum(left_out.values())
    reasons = [f"{plural(rows, 'row')} with {reason} {_are(rows)} left out" for reason, rows in left_out.items()]
    if without:
        reasons.append(
            f"{plural(without, 'row')} {'has' if without == 1 else 'have'} no score and {_are(without)} left out"
        )
    where = "standard output" if summary["out"] == STDOUT else summary["out"]
    lines = [
        f"{summary['kept']:,} of {plural(summary['scored'], 'scored row')} by {options.method} → {where}"
        + (f" ({'; '.join(reasons)})" if reasons else "")
    ]
    if options.by is not None:
        lines.append(_by_group(options.by, kept.groups))
    if options.method == KMEANS_IFD:
        lines.append(_by_group("cluster", kept.groups, "IFD < 1"))
        if none := sum(not group.kept for group in kept.groups):
            lines.append(
                f"{none:,} of {plural(len(kept.groups), 'cluster')} keep no row: too few of their rows have an IFD "
                "below 1"
            )
    return "\n".join(lines)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def rank_command(
    scores: Scores,
    method: Annotated[str, typer.Option(help=f"{_METHODS} (rows with IFD ≥ 1 left out).")] = "topsis",
    prefer: Prefer = None,
    weights: Annotated[str, typer.Option(help="Weights of DON and NOD, as 0.5,0.5.")] = "0.5,0.5",
    lr: Annotated[float | None, typer.Option(help="Rank as if scored at this learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="For random.")] = 0,
    count: Annotated[int, typer.Option(help="Rows to show at either end.", min=1)] = 5,
    width: Annotated[int, typer.Option(help="Characters of text.", min=10)] = 80,
    engine: EngineName = "auto",
    memory: Memory = "2GiB",
    temp_dir: Annotated[Path | None, typer.Option(help="For what does not fit in memory.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the best and the worst rows of SCORES, text beside numbers."""
    from donod_fast.scores.folder import ScoresFolder

    folder = ScoresFolder.open(scores)
    if method == KMEANS_IFD:
        raise InputError(f"method {KMEANS_IFD} chooses rows and does not rank them; use `donod-fast select --explain`")
    method = with_end(method, prefer)
    options = RankOptions(method, _weights(weights), lr, seed, None, engine, parse_size(memory), temp_dir)
    with ranked(folder, options) as ranking:
        corpus = folder.reopened()
        if json:
            shown = ranking.explain(corpus, count, width, "utf-8")
            output.as_json({"method": method, "rows": [asdict(row) for row in shown]})
        else:
            _show(ranking, corpus, count, width)


def with_end(method: str, prefer: str | None) -> str:
    """The method with the end of ``--prefer``."""
    if prefer is None:
        return method
    if prefer not in ENDS:
        raise InputError(f"--prefer must be {' or '.join(ENDS)}, got {prefer!r}")
    if method == KMEANS_IFD:
        raise InputError(f"method {KMEANS_IFD} keeps high IFDs; remove --prefer")
    return f"{method}@{prefer}"


def _weights(text: str) -> tuple[float, float]:
    try:
        don, nod = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--weights must be two numbers with a comma, for example 0.5,0.5; got {text!r}") from None
    return don, nod


def _by_group(by: str, groups: Sequence[GroupCount], scored: str = "scored") -> str:
    """A table of the largest groups; ``scored`` is the heading of the rows that could be kept."""
    largest = sorted(groups, key=lambda group: -group.scored)[:_SHOWN_GROUPS]
    lines = [
        ("(none)" if group.name is None else group.name, f"{group.kept:,}", f"{group.scored:,}", f"{group.rows:,}")
        for group in largest
    ]
    shown = output.table((by, "kept", scored, "rows"), lines)
    rest = len(groups) - len(largest)
    return shown + (f"\n… and {plural(rest, 'smaller group')} (--json shows all)" if rest else "")


def _show(ranking: Engine, corpus: Corpus, count: int, width: int = 80, *, err: bool = False) -> None:
    from donod_fast.selection.explain import render

    stream = sys.stderr if err else sys.stdout
    typer.echo(render(ranking.explain(corpus, count, width, stream.encoding or "ascii")), err=err)


__all__ = ["load_columns", "rank_command", "select", "with_end"]
