r"""K-Means + IFD (arXiv 2504.12687): clusters of the questions give diversity, IFD within each picks hard rows.

The rule follows the paper and its authors' code (CodeACT):

1. embed the question alone, and scale the vector to unit length;
2. ``KMeans(n_clusters=10, random_state=42)`` of scikit-learn over all rows, other arguments at their defaults;
3. drop the rows with IFD (ratio of perplexities) ≥ 1;
4. sort the remaining rows of each cluster by falling IFD (ties by row number), and keep the first ``int(rows · 0.4)``.

``int`` rounds down: a cluster with one or two remaining rows keeps none at 0.4. The paper embeds with all-mpnet-base-v2
and scores the prompt ``Question:\n{question}\n\nAnswer:\n``; to do the same, score a corpus with ``prompt`` and
``completion`` in that form. Rows without an IFD or an embedding are not used, but counted.

The clusters are computed on one thread, so they are the same on any number of cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.selection.clustering import cluster_labels, usable
from donod_fast.selection.embeddings import check_embeddings, read_embeddings
from donod_fast.selection.settings import CLUSTERS, KMEANS_IFD
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

"""The method's name."""

SEED, KEEP = 42, 0.4
LIMIT = 1.0

Floats = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClusterCount:
    """Row counts of a cluster.

    Attributes:
        rows: number of rows.
        helped: number of rows with an IFD below 1.
        kept: number of kept rows.
    """

    rows: int
    helped: int
    kept: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The result of :func:`choose`.

    Attributes:
        rows: (k,) int64 row numbers by falling IFD, ties by row number.
        ifd: (k,) float64, the IFD of these rows.
        clusters: row counts by cluster, including clusters that keep no row.
        unhelped: number of rows dropped because their IFD is 1 or more.
        without_ifd: number of rows without an IFD.
        without_embedding: number of rows with an IFD but no embedding.
    """

    rows: Rows
    ifd: Floats
    clusters: tuple[ClusterCount, ...]
    unhelped: int
    without_ifd: int
    without_embedding: int


def choose(
    rows: Sequence[int] | Rows,
    embeddings: Floats,
    ifd: Sequence[float] | Floats,
    *,
    clusters: int = CLUSTERS,
    keep: float = KEEP,
    seed: int = SEED,
) -> Chosen:
    """Choose rows by the rule at the top of this module.

    Args:
        rows: (n,) row numbers, each once.
        embeddings: (n, d) embeddings of the questions, of any length except zero; NaN if there is none.
        ifd: (n,) ratios of perplexities; NaN if there is none.
        clusters: number of clusters.
        keep: share to keep of the remaining rows of each cluster, 0 < keep ≤ 1.
        seed: seed of K-Means.

    Raises:
        InputError: scikit-learn is not installed, shapes that differ, a number out of range, fewer rows than clusters,
            or nothing kept.
    """
    if isinstance(keep, bool) or not isinstance(keep, float) or not 0 < keep <= 1:
        raise InputError(f"kmeans-ifd keeps a share of each cluster, for example --keep 0.4; got {keep!r}")
    if isinstance(clusters, bool) or not isinstance(clusters, int) or clusters < 1:
        raise InputError(f"--clusters must be at least 1, got {clusters!r}")
    numbers, ratios = np.asarray(rows, np.int64), np.asarray(ifd, np.float64)
    if embeddings.ndim != 2 or not len(numbers) == len(ratios) == len(embeddings):
        raise InputError(
            f"kmeans-ifd takes n rows, n IFDs and (n, d) embeddings, got {len(numbers)}, {len(ratios)} and "
            f"{embeddings.shape}"
        )
    scored = ~np.isnan(ratios)
    embedded, lengths = usable(embeddings)
    there = scored & embedded
    by_row = np.flatnonzero(there)[np.argsort(numbers[there], kind="stable")]
    if len(by_row) < clusters:
        raise InputError(
            f"kmeans-ifd: only {plural(len(by_row), 'row')} with an IFD and an embedding, fewer than --clusters "
            f"{clusters}; " + (f"give at most --clusters {len(by_row)}" if len(by_row) else "score them first")
        )
    numbers, ratios = numbers[by_row], ratios[by_row]
    units = (embeddings[by_row] / lengths[by_row, None]).astype(embeddings.dtype, copy=False)
    labels = cluster_labels(units, clusters, seed, KMEANS_IFD)
    kept: list[int] = []
    counts = []
    for cluster in range(clusters):
        members = np.flatnonzero(labels == cluster)
        helped = members[ratios[members] < LIMIT]
        hardest = helped[np.argsort(-ratios[helped], kind="stable")]
        first = hardest[: int(len(helped) * keep)]
        kept += first.tolist()
        counts.append(ClusterCount(len(members), len(helped), len(first)))
    if not kept:
        most = max(count.helped for count in counts)
        raise InputError(
            f"kmeans-ifd keeps nothing: int(rows · {keep:g}) is 0 for every cluster; the largest has {most} rows with "
            "an IFD below 1; raise --keep, or use fewer --clusters"
        )
    places = np.array(sorted(kept), np.int64)
    places = places[np.argsort(-ratios[places], kind="stable")]
    return Chosen(
        rows=numbers[places],
        ifd=ratios[places],
        clusters=tuple(counts),
        unhelped=int((ratios >= LIMIT).sum()),
        without_ifd=int((~scored).sum()),
        without_embedding=int((scored & ~embedded).sum()),
    )


@dataclass(frozen=True, slots=True)
class Questions:
    """The scored rows of a folder, with their embeddings and IFDs.

    Attributes:
        rows: (n,) int64 row numbers, rising.
        embeddings: (n, d) float32; NaN if there is none.
        ifd: (n,) float64; NaN if there is none.
    """

    rows: Rows
    embeddings: Floats
    ifd: Floats


def read_questions(
    folder: ScoresFolder, model: str | None = None, *, memory: int | None = None, ifd: bool = True
) -> Questions:
    """Read IFDs and embeddings of the rows of a scores folder that have DON and NOD.

    Args:
        folder: a finished folder.
        model: sentence-transformers model for the embeddings; None for the folder's column ``embedding``.
        memory: memory limit of the embeddings in bytes; None for no limit.
        ifd: whether IFDs are needed; else they are NaN.

    Raises:
        InputError: a column is missing (the message says how to add it), the memory limit is too small, or a package is
            not installed.
        CorpusError: the records can no longer be read.
        ModelError: the model cannot be loaded.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.selection.column_methods import find_method
    from donod_fast.selection.out_of_core.loading import read_narrow

    if ifd:
        find_method("ifd", [column.name for column in folder.signal_columns()])  # says how to add the signal
    check_embeddings(folder, model, KMEANS_IFD)
    table = read_narrow(folder, ["row", "don", *(["ifd_ppl"] if ifd else [])])
    scored = ~np.isnan(table.column("don").to_numpy())
    rows = table.column("row").to_numpy()[scored]
    values = table.column("ifd_ppl").to_numpy()[scored] if ifd else np.full(len(rows), np.nan)
    wanted = ~np.isnan(values) if ifd else np.ones(len(rows), bool)
    return Questions(rows, read_embeddings(folder, rows, wanted, KMEANS_IFD, model, memory=memory), values)


__all__ = ["CLUSTERS", "KEEP", "KMEANS_IFD", "SEED", "Chosen", "ClusterCount", "Questions", "choose", "read_questions"]
