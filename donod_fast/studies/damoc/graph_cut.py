"""GraphCut: choose rows that represent all rows and differ from each other, by greedy maximisation.

    f(X) = Σ_{i∈V, j∈X} s_ij − λ Σ_{i,j∈X} s_ij

with s_ij the cosine of the embeddings, clipped at 0 (``similarity.py``). For s ≥ 0 and λ < 0.5 f is monotone and
submodular, so greedy maximisation reaches at least 1 − 1/e of the best value (Nemhauser, Wolsey, Fisher 1978). DaMoC
(arXiv 2509.01221) names GraphCut as its distribution-aware filter; the similarities and λ are our reading of it.

Adding row k to X lowers the gain of every row j by 2λ s_jk, so a step is one product of the embeddings with one of
them. This is exact, and needs O(n d) memory instead of the n × n matrix. Equal gains are ordered by row number.

Beyond ``part_rows`` rows even n² arithmetic is too much. The rows are then divided at random (by a seed) into parts.
Each part is maximised with itself as V and contributes its share of rows. The rows are merged by their gain relative
to the size of their part. This is an approximation: the guarantee holds inside each part only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.models.sentence_embeddings import Embeddings, unit_rows
from donod_fast.studies.damoc.similarity import similarity, similarity_blocks

TRADE_OFF = 0.4
"""λ: weight of the penalty on similarity within the selection."""

PART_ROWS = 65_536
"""Rows of a part; computing their similarities takes about a minute on a few cores."""


def graph_cut(
    embeddings: npt.NDArray[Any],
    count: int,
    trade_off: float = TRADE_OFF,
    *,
    part_rows: int = PART_ROWS,
    seed: int = 0,
) -> tuple[int, ...]:
    """Choose ``count`` rows, best first. Within a part, a smaller count gives a prefix of the same sequence.

    Args:
        embeddings: (n, d) of any real dtype; scaled to length 1 here.
        count: rows to choose, 1 to n.
        trade_off: λ, 0 ≤ λ < 0.5.
        part_rows: up to this many rows are maximised together.
        seed: of the division into parts.

    Returns:
        Row numbers.

    Raises:
        InputError: an argument has a wrong value.
        ModelError: an embedding has no direction.
    """
    vectors = unit_rows(np.asarray(embeddings))
    rows = len(vectors)
    check_count(count, rows)
    check_trade_off(trade_off)
    if part_rows < 1:
        raise InputError(f"part_rows must be at least 1, got {part_rows}")
    if rows > part_rows:
        return _by_parts(vectors, count, trade_off, part_rows, seed)
    return tuple(_greedy(vectors, count, trade_off)[0].tolist())


def graph_cut_value(embeddings: npt.NDArray[Any], rows: npt.ArrayLike, trade_off: float = TRADE_OFF) -> float:
    """The objective f of a set of rows (see the module), in float64."""
    check_trade_off(trade_off)
    vectors = unit_rows(np.asarray(embeddings))
    chosen = vectors[np.asarray(rows, dtype=np.int64)]
    covered = sum(float(block.sum(dtype=np.float64)) for _, block in similarity_blocks(chosen, vectors))
    within = sum(float(block.sum(dtype=np.float64)) for _, block in similarity_blocks(chosen, chosen))
    return covered - trade_off * within


def check_trade_off(trade_off: float) -> None:
    """Refuse a λ for which greedy maximisation has no guarantee. Raises InputError."""
    if not 0.0 <= trade_off < 0.5:
        raise InputError(f"graph-cut's trade-off must be at least 0 and below 0.5 (monotone), got {trade_off}")


def check_count(count: int, rows: int) -> None:
    """Refuse to choose none, or more than there are. Raises InputError."""
    if not 1 <= count <= rows:
        raise InputError(f"cannot choose {count} of {rows} rows; ask for 1 to {rows}")


def _greedy(vectors: Embeddings, count: int, trade_off: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(count,) rows and the gain of each when it was chosen."""
    gains = np.empty(len(vectors), dtype=np.float64)
    for start, block in similarity_blocks(vectors, vectors):
        gains[start : start + len(block)] = block.sum(axis=1, dtype=np.float64)
    gains -= trade_off  # s_jj is 1
    rows, found = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float64)
    for step in range(count):
        best = int(gains.argmax())  # the first of equal ones
        rows[step], found[step] = best, gains[best]
        gains -= 2.0 * trade_off * similarity(vectors[best : best + 1], vectors)[0]
        gains[best] = -np.inf
    return rows, found


def _by_parts(vectors: Embeddings, count: int, trade_off: float, part_rows: int, seed: int) -> tuple[int, ...]:
    order = np.random.default_rng(seed).permutation(len(vectors))
    parts = [np.sort(part) for part in np.array_split(order, -(-len(vectors) // part_rows))]
    rows, merit = [], []
    for part, share in zip(parts, _shares([len(part) for part in parts], count), strict=True):
        if share:
            chosen, gains = _greedy(vectors[part], share, trade_off)
            rows.append(part[chosen])
            merit.append(gains / len(part))
    found = np.concatenate(rows)
    return tuple(found[np.lexsort((found, -np.concatenate(merit)))].tolist())


def _shares(sizes: list[int], count: int) -> list[int]:
    """``count`` divided in proportion to the sizes, by largest remainders."""
    total = sum(sizes)
    shares = [size * count // total for size in sizes]
    rest = [size * count % total for size in sizes]
    for place in sorted(range(len(sizes)), key=lambda at: (-rest[at], at))[: count - sum(shares)]:
        shares[place] += 1
    return shares


__all__ = ["TRADE_OFF", "check_count", "check_trade_off", "graph_cut", "graph_cut_value"]
