"""A scores folder → the columns of a comparison, for all rows or for a random sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from donod_fast.errors import InputError
from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.selection.column_methods import OWN_METHODS, find_method, split_end
from donod_fast.selection.comparison.measures import RANKED, Comparison, compare_columns
from donod_fast.selection.out_of_core.loading import number_columns, read_columns, weight_norm
from donod_fast.selection.rankers import ranked
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.selection.settings import BY_EMBEDDINGS, KMEANS_IFD, CompareOptions, RankOptions
from donod_fast.selection.turn_names import turn_column, turn_columns
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.scores.folder import ScoresFolder

DEFAULT_MEMORY = 2 << 30

# Measured: for each criterion its column, value, selection and ranks; and for each row its number and position.
_BYTES_PER_VALUE, _BYTES_PER_ROW = 48, 400


def compare_by(folder: ScoresFolder, how: CompareOptions) -> Comparison:
    """Compare the criteria of a folder as the options say; see :func:`compare_folder`."""
    return compare_folder(
        folder,
        how.columns or None,
        share=how.keep,
        measure=how.correlation,
        normalise=how.normalise,
        sample=how.sample,
        seed=how.seed,
        embedding_model=how.embedding_model,
        memory=how.memory,
    )


def compare_folder(
    folder: ScoresFolder,
    names: Sequence[str] | None = None,
    *,
    share: float | int = 0.3,
    measure: str = "spearman",
    normalise: str = DEFAULT_NORMALISE,
    sample: int | None = None,
    seed: int = 0,
    embedding_model: str | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Comparison:
    """Compare the criteria of a folder.

    Args:
        folder: a finished folder.
        names: methods and columns; None for all columns and the methods that rank by several columns. Methods by
            embeddings must be named; ``kmeans-ifd`` keeps ``share`` of each cluster.
        share: how much each criterion selects, a fraction or a count.
        measure: ``spearman`` or ``kendall``.
        normalise: what TOPSIS divides the columns by; see ``ranking.rank``.
        sample: number of rows to draw with ``seed``; None for all rows.
        seed: seed of the draw, at least 0.
        embedding_model: embedding model of ``kmeans-ifd``.
        memory: memory limit in bytes.

    Raises:
        InputError: an unknown name, a missing column, a sample out of range, or more rows than fit in memory.
        StoreError: the folder is unfinished or damaged.
    """
    if sample is not None and sample < 2:
        raise InputError(f"--sample must be at least 2 rows, got {sample}")
    if seed < 0:
        raise InputError(f"--seed must not be negative, got {seed}")
    present = number_columns(folder)
    wanted = list(names) if names is not None else [*RANKED, *present]
    choosing = [name for name in BY_EMBEDDINGS if name in wanted]
    if choosing and sample is not None:
        raise InputError(f"{choosing[0]} chooses among all rows; remove --sample, or remove it from --columns")
    wanted = [name for name in wanted if name not in choosing]
    further = [one for name in wanted for one in _columns(name, present)]
    columns = list(dict.fromkeys(["row", "don", "nod", "loss", "tokens", *further]))
    drawn = folder.rows if sample is None else min(sample, folder.rows)
    needed = drawn * (_BYTES_PER_ROW + _BYTES_PER_VALUE * len(wanted))
    if needed > memory:
        fits = max(memory // (_BYTES_PER_ROW + _BYTES_PER_VALUE * len(wanted)), 2)
        raise InputError(
            f"{plural(drawn, 'row')} by {len(wanted)} criteria take about {needed / 2**30:.2g} GiB; compare a sample "
            f"with --sample {fits}, fewer criteria with --columns, or raise --memory"
        )
    table = _read(folder, columns, None if drawn == folder.rows else drawn, seed)
    scores = ScoreColumns.from_table(table, weight_norm=weight_norm(folder), more=columns[4:])
    chosen = {name: _chosen(folder, name, share, embedding_model, memory) for name in choosing}
    return compare_columns(
        scores, wanted, share=share, measure=measure, normalise=normalise, total=folder.rows, chosen=chosen
    )


def _columns(name: str, present: Sequence[str]) -> list[str]:
    """The columns that a name needs besides DON, NOD and the loss."""
    bare, _ = split_end(name)
    if bare in OWN_METHODS:
        return []
    if bare in present:
        return [bare]
    if turn_column(name) is not None:
        return turn_columns(name, present)
    by = find_method(name, present)
    return [] if by is None else [by.column]


def _chosen(folder: ScoresFolder, method: str, share: float | int, model: str | None, memory: int) -> list[int]:
    """The rows that a method without a ranking keeps."""
    if method == KMEANS_IFD and not isinstance(share, float):
        raise InputError(f"{KMEANS_IFD} keeps a share of each cluster; give --keep as a fraction")
    options = RankOptions(method=method, embedding_model=model, memory=memory)
    with ranked(folder, options) as ranking:
        return [int(row) for row in ranking.keep(share, None, None, False).rows]


def _read(folder: ScoresFolder, columns: Sequence[str], sample: int | None, seed: int) -> pa.Table:
    """Read the columns of all rows, or of a random sample, in input order."""
    import pyarrow as pa

    folder.part_files()  # refuses an unfinished folder
    wanted: Any = None
    if sample is not None:
        # Without shuffling the generator keeps no list of all rows: memory grows with the sample only.
        wanted = np.sort(np.random.default_rng(seed).choice(folder.rows, sample, replace=False, shuffle=False))
    tables = []
    for part in range(folder.parts):
        start, stop = folder.part_range(part)
        if wanted is None:
            tables.append(read_columns(folder, part, columns))
            continue
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)]
        if len(here):
            tables.append(read_columns(folder, part, columns).take(pa.array(here - start)))
    return pa.concat_tables(tables)


__all__ = ["DEFAULT_MEMORY", "compare_folder"]
