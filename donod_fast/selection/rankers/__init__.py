"""One interface for the two ranking engines: in memory, and larger than memory (DuckDB); and the choice of engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from donod_fast.errors import InputError
from donod_fast.selection.rankers.columns import load_columns, refuse_rounded
from donod_fast.selection.rankers.interface import Engine, Kept
from donod_fast.selection.rankers.varied import varied
from donod_fast.selection.settings import (
    BY_EMBEDDINGS,
    CLUSTER_BALANCED,
    ENGINES,
    KCENTER,
    KMEANS_IFD,
    RankOptions,
    parse_size,
)

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

# Memory use of ranking in memory, measured: all columns of the parts, the ranked ones, their copies and sorts.
_BYTES_PER_ROW = 400
_BYTES_PER_SIGNAL = 24  # for each further number column
_BYTES_AT_LEAST = 300 << 20  # Python, PyTorch and Arrow


@contextmanager
def ranked(folder: ScoresFolder, options: RankOptions) -> Iterator[Engine]:
    """Rank the rows of a finished folder.

    Raises:
        InputError: a bad option.
        StoreError: the folder is unfinished or damaged.
    """
    if options.lr is not None:
        refuse_rounded(folder)
    if options.checkpoint and (options.method in BY_EMBEDDINGS or options.engine == "duckdb" or options.by is not None):
        raise InputError(
            "--checkpoint averages a column of all rows in memory; remove --by and --engine duckdb, rank by a column"
        )
    if options.method == KMEANS_IFD:
        from donod_fast.selection.rankers.clusters import Clusters

        yield Clusters(folder, options)
        return
    if options.method in (KCENTER, CLUSTER_BALANCED):
        from donod_fast.selection.rankers.covering import CoveringRows

        yield CoveringRows(folder, options)
        return
    signals = sum(column.kind == "number" for entry in folder.signals for column in entry.columns)
    needed = folder.rows * (_BYTES_PER_ROW + _BYTES_PER_SIGNAL * signals) + _BYTES_AT_LEAST
    if options.engine == "memory" and options.by is not None:
        raise InputError("--by needs the engine duckdb; remove --engine memory")
    if options.engine == "memory" or (options.engine == "auto" and options.by is None and needed <= options.memory):
        from donod_fast.selection.rankers.in_memory import InMemory

        yield varied(InMemory(folder, options), folder, options)
        return
    from donod_fast.selection.out_of_core import rank_parts
    from donod_fast.selection.rankers.larger_than_memory import LargerThanMemory

    if options.checkpoint:
        raise InputError(
            f"--checkpoint averages a column of all rows in memory, which take about {needed / 2**30:.2g} GiB; raise "
            "--memory"
        )
    with rank_parts(
        folder,
        options.method,
        weights=options.weights,
        normalise=options.normalise,
        seed=options.seed,
        lr=options.lr,
        by=options.by,
        memory=options.memory,
        temp_dir=options.temp_dir,
    ) as ranking:
        yield varied(LargerThanMemory(ranking, options), folder, options)


__all__ = ["ENGINES", "KMEANS_IFD", "Engine", "Kept", "RankOptions", "load_columns", "parse_size", "ranked"]
