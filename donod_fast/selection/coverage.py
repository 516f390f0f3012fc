"""Coverage: rows that are spread over the embeddings, instead of rows with the best score.

- ``kcenter``, greedy k-centre (Gonzalez 1985; Sener and Savarese, arXiv 1708.00489): the first row is drawn by a seed,
  and each further one is the row that is farthest from all rows chosen so far. No other row is then farther from a
  chosen row than twice the best that any k rows allow. The distance is Euclidean, of unit vectors, from 0 to 2.
- ``cluster-balanced``: K-Means clusters (scikit-learn, its ``random_state`` is the seed) keep equal numbers of rows. A
  cluster that has fewer keeps all, and the others share what is left. Within a cluster rows come by a column, best end
  first, or by a random draw with the same seed.

Both need all embeddings in memory (three copies in float32) and refuse more than the limit; neither works out of core,
because each choice depends on all others. k rows of n by ``kcenter`` cost n · k · d multiplications on one core.
Results do not depend on the number of cores or on the order of the rows. Ties go to the lower row number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.selection.clustering import cluster_labels, one_thread, usable
from donod_fast.selection.keeping import kept_count
from donod_fast.selection.settings import CLUSTER_BALANCED, CLUSTERS, KCENTER
from donod_fast.system.wording import plural

Floats = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
_FARTHEST = 2.0  # of two unit vectors


@dataclass(frozen=True, slots=True)
class ClusterShare:
    """Row counts of a cluster.

    Attributes:
        rows: number of rows with an embedding.
        usable: of those, the number of rows with a value of the column.
        kept: number of kept rows.
    """

    rows: int
    usable: int
    kept: int


@dataclass(frozen=True, slots=True)
class Covering:
    """Chosen rows.

    Attributes:
        rows: (k,) int64 row numbers, in the order of choosing.
        value: (k,) float64, never increasing: for ``kcenter`` the distance to the nearest row chosen before (2 for the
            first), for ``cluster-balanced`` minus the place within the cluster, from 1.
        candidates: number of rows that could be chosen.
        without_embedding: number of rows without an embedding.
        without_value: number of rows with an embedding but without a value of the column.
        clusters: counts of the clusters; empty for ``kcenter``.
    """

    rows: Rows
    value: Floats
    candidates: int
    without_embedding: int
    without_value: int = 0
    clusters: tuple[ClusterShare, ...] = ()


def k_center(rows: Sequence[int] | Rows, embeddings: Floats, keep: float | int, *, seed: int = 0) -> Covering:
    """Choose rows by greedy k-centre.

    Args:
        rows: (n,) row numbers, each once.
        embeddings: (n, d) of any length except zero; NaN if there is none.
        keep: how many of the rows with an embedding, a share or a count; see ``keeping.keep``.
        seed: draws the first row.

    Raises:
        InputError: shapes that differ, no row with an embedding, a bad share or seed, scikit-learn is not installed.
    """
    numbers, units, missing = _prepared(rows, embeddings, KCENTER)
    count = kept_count(keep, len(numbers))
    first = int(_generator(seed).integers(len(numbers)))
    with one_thread(KCENTER):
        picked, values = farthest_first(units, count, first)
    return Covering(numbers[picked], np.minimum.accumulate(values), len(numbers), missing)


def farthest_first(units: Floats, count: int, first: int) -> tuple[Rows, Floats]:
    """Greedy k-centre from a given vector on.

    Args:
        units: (n, d) float32, each of length 1.
        count: how many to choose, at most n.
        first: the first choice.

    Returns:
        (count,) indices in the order of choosing, and the distance of each to the nearest chosen before it.
    """
    nearest = np.full(len(units), _FARTHEST, np.float64)
    picked, values = np.empty(count, np.int64), np.empty(count, np.float64)
    at = first
    for place in range(count):
        picked[place], values[place] = at, nearest[at]
        # Of unit vectors; rounding must not make a copy of a chosen row farther than another copy.
        distance = np.sqrt(np.maximum(2.0 - 2.0 * (units @ units[at]).astype(np.float64), 0.0))
        np.minimum(nearest, np.where(distance < 1e-3, 0.0, distance), out=nearest)
        nearest[at] = -1.0  # chosen
        at = int(nearest.argmax())
    return picked, values


def cluster_balanced(
    rows: Sequence[int] | Rows,
    embeddings: Floats,
    keep: float | int,
    *,
    clusters: int = CLUSTERS,
    value: Sequence[float] | Floats | None = None,
    seed: int = 0,
) -> Covering:
    """Choose equal numbers of rows from each cluster.

    Args:
        rows: (n,) row numbers, each once.
        embeddings: (n, d) of any length except zero; NaN if there is none.
        keep: how many of the usable rows, a share or a count; see ``keeping.keep``.
        clusters: number of clusters.
        value: (n,) figures of merit within a cluster, high first; NaN if a row has none. None for a random draw.
        seed: of K-Means and of the draw.

    Raises:
        InputError: as :func:`k_center`; fewer rows than clusters.
    """
    if isinstance(clusters, bool) or not isinstance(clusters, int) or clusters < 1:
        raise InputError(f"--clusters must be at least 1, got {clusters!r}")
    numbers, units, missing = _prepared(rows, embeddings, CLUSTER_BALANCED)
    if len(numbers) < clusters:
        raise InputError(
            f"{CLUSTER_BALANCED}: only {plural(len(numbers), 'row')} with an embedding, fewer than --clusters "
            f"{clusters}; give at most --clusters {len(numbers)}"
        )
    generator = _generator(seed)
    if value is None:
        merit = generator.random(len(numbers))
    else:
        of_row = dict(zip(np.asarray(rows).tolist(), np.asarray(value, np.float64).tolist(), strict=True))
        merit = np.array([of_row[row] for row in numbers.tolist()])
    labels = cluster_labels(units, clusters, seed % 2**32, CLUSTER_BALANCED)  # KMeans takes 32 bits
    there = ~np.isnan(merit)
    members = [np.flatnonzero((labels == cluster) & there) for cluster in range(clusters)]
    sizes = [len(one) for one in members]
    if not sum(sizes):
        raise InputError(f"{CLUSTER_BALANCED}: no row has an embedding and a value of the column")
    shares = even_shares(sizes, kept_count(keep, sum(sizes)))
    chosen = [one[np.argsort(-merit[one], kind="stable")][:share] for one, share in zip(members, shares, strict=True)]
    places = np.concatenate([np.arange(len(one)) for one in chosen])
    picked = np.concatenate(chosen)
    order = np.lexsort((numbers[picked], places))
    return Covering(
        rows=numbers[picked][order],
        value=-(places[order] + 1.0),
        candidates=sum(sizes),
        without_embedding=missing,
        without_value=len(numbers) - sum(sizes),
        clusters=tuple(
            ClusterShare(int((labels == cluster).sum()), sizes[cluster], shares[cluster]) for cluster in range(clusters)
        ),
    )


def even_shares(sizes: Sequence[int], count: int) -> list[int]:
    """Divide a count among groups as evenly as their sizes allow; a remainder goes to the largest, then the earlier."""
    shares = [0] * len(sizes)
    left = min(count, sum(sizes))
    # From the smallest on: each gets its even share of what is left, so a group that is too small passes the rest on.
    order = sorted(range(len(sizes)), key=lambda at: (sizes[at], -at))
    for done, at in enumerate(order):
        shares[at] = min(sizes[at], left // (len(order) - done))
        left -= shares[at]
    return shares


def _prepared(rows: Sequence[int] | Rows, embeddings: Floats, method: str) -> tuple[Rows, Floats, int]:
    """Rows with an embedding by rising number, their unit vectors in float32, and how many rows have none."""
    numbers = np.asarray(rows, np.int64)
    if embeddings.ndim != 2 or len(numbers) != len(embeddings):
        raise InputError(f"{method} takes n rows and (n, d) embeddings, got {len(numbers)} and {embeddings.shape}")
    there, lengths = usable(embeddings)
    if not there.any():
        raise InputError(f"{method}: none of the {plural(len(numbers), 'row')} has an embedding")
    by_row = np.flatnonzero(there)[np.argsort(numbers[there], kind="stable")]
    units = (embeddings[by_row] / lengths[by_row, None]).astype(np.float32)
    return numbers[by_row], units, int((~there).sum())


def _generator(seed: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be an integer from 0 to 2**63 - 1, got {seed!r}")
    return np.random.default_rng(seed)


__all__ = ["ClusterShare", "Covering", "cluster_balanced", "even_shares", "farthest_first", "k_center"]
