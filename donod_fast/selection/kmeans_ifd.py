r"""K-Means + IFD (arXiv 2504.12687): diverse by clusters of the questions, hard by IFD within each.

The rule, after the paper and its authors' code (CodeACT):

1. embed the question alone, and scale the vector to unit length;
2. ``KMeans(n_clusters=10, random_state=42)`` of scikit-learn over all rows, other arguments as they come;
3. drop the rows with IFD (ratio of perplexities) ≥ 1;
4. sort what remains of each cluster by falling IFD (ties by row number), and keep its first ``int(rows · 0.4)``.

``int`` rounds down: a cluster with one or two rows left keeps none at 0.4. The paper embeds with all-mpnet-base-v2 and
scores the prompt ``Question:\n{question}\n\nAnswer:\n``; score a corpus of ``prompt`` and ``completion`` in that form
to have it so. Rows without an IFD or an embedding take no part, and are counted.

The clusters are computed on one thread: the sums, and so the clusters, are the same on any number of cores.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

KMEANS_IFD = "kmeans-ifd"
"""The method's name."""

CLUSTERS, SEED, KEEP = 10, 42, 0.4
LIMIT = 1.0
_CHUNK = 1024  # records whose questions are embedded in one call

Floats = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClusterCount:
    """A cluster and what is kept of it.

    Attributes:
        rows: how many it has.
        helped: how many of them have an IFD below 1.
        kept: how many of those are kept.
    """

    rows: int
    helped: int
    kept: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """What :func:`choose` keeps.

    Attributes:
        rows: (k,) int64 row numbers by falling IFD, ties by row number.
        ifd: (k,) float64, theirs.
        clusters: by number; a cluster that keeps nothing is there, too.
        unhelped: rows that were dropped for an IFD ≥ 1.
        without_ifd: rows that have none.
        without_embedding: rows that have an IFD and no embedding.
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
    """Choose rows by the rule of the module.

    Args:
        rows: (n,) row numbers, each once.
        embeddings: (n, d) of the questions, of any length but zero; NaN where there is none.
        ifd: (n,) ratios of perplexities; NaN where there is none.
        clusters: how many.
        keep: of what remains of each cluster, 0 < keep ≤ 1.
        seed: of K-Means.

    Raises:
        InputError: scikit-learn is not installed, shapes that differ, a number out of range, fewer rows than clusters,
            or nothing kept.
    """
    if isinstance(keep, bool) or not isinstance(keep, float) or not 0 < keep <= 1:
        raise InputError(f"kmeans-ifd keeps a share of each cluster, as --keep 0.4; got {keep!r}")
    if isinstance(clusters, bool) or not isinstance(clusters, int) or clusters < 1:
        raise InputError(f"--clusters must be a number from 1, got {clusters!r}")
    numbers, ratios = np.asarray(rows, np.int64), np.asarray(ifd, np.float64)
    if embeddings.ndim != 2 or not len(numbers) == len(ratios) == len(embeddings):
        raise InputError(
            f"kmeans-ifd takes n rows, n IFDs and (n, d) embeddings, got {len(numbers)}, {len(ratios)} and "
            f"{embeddings.shape}"
        )
    scored = ~np.isnan(ratios)
    with np.errstate(all="ignore"):  # rows of no length, or of NaN, are left out by name
        lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    embedded = np.isfinite(lengths) & (lengths > 0)
    there = scored & embedded
    by_row = np.flatnonzero(there)[np.argsort(numbers[there], kind="stable")]
    if len(by_row) < clusters:
        raise InputError(
            f"kmeans-ifd: only {plural(len(by_row), 'row')} with an IFD and an embedding, fewer than --clusters "
            f"{clusters}; " + (f"give at most --clusters {len(by_row)}" if len(by_row) else "score them first")
        )
    numbers, ratios = numbers[by_row], ratios[by_row]
    units = (embeddings[by_row] / lengths[by_row, None]).astype(embeddings.dtype, copy=False)
    labels = _labels(units, clusters, seed)
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
            f"kmeans-ifd keeps nothing: int(rows · {keep:g}) is 0 for every cluster, of which the largest has {most} "
            "rows with an IFD below 1; keep more, or take fewer --clusters"
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


def _labels(units: Floats, clusters: int, seed: int) -> npt.NDArray[Any]:
    try:
        library: Any = importlib.import_module("sklearn.cluster")
        threads: Any = importlib.import_module("threadpoolctl")
    except ImportError:
        raise InputError("kmeans-ifd needs scikit-learn: pip install 'donod-fast[criteria]'") from None
    with threads.threadpool_limits(1), warnings.catch_warnings():
        # Fewer distinct questions than clusters: the clusters left without a row are in the counts.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        found: npt.NDArray[Any] = library.KMeans(n_clusters=clusters, random_state=seed).fit_predict(units)
    return found


@dataclass(frozen=True, slots=True)
class Questions:
    """The scored rows of a folder, with what the rule needs of them.

    Attributes:
        rows: (n,) int64 row numbers, rising.
        embeddings: (n, d) float32; NaN where there is none.
        ifd: (n,) float64; NaN where there is none.
    """

    rows: Rows
    embeddings: Floats
    ifd: Floats


def read_questions(folder: ScoresFolder, model: str | None = None, *, memory: int | None = None) -> Questions:
    """IFDs and embeddings of the rows of a scores folder that have DON and NOD.

    Args:
        folder: a finished one, with the signal ``ifd``.
        model: a sentence-transformers model, folder or hub id, that embeds the questions of the original records; None
            for the folder's column ``embedding``.
        memory: bytes that the embeddings may take; None for any.

    Raises:
        InputError: a column is not there (the message says how to add it), no room, or a package is not installed.
        CorpusError: the records cannot be read any more.
        ModelError: the model cannot be loaded.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.selection.column_methods import find_method
    from donod_fast.selection.out_of_core.loading import read_narrow

    columns = {column.name: column for column in folder.signal_columns()}
    find_method("ifd", columns)  # says how to add the signal
    if model is None and "embedding" not in columns:
        raise InputError(
            "kmeans-ifd needs embeddings of the questions: name a model, as --embedding-model "
            "sentence-transformers/all-mpnet-base-v2, or add the scorer's own by `donod-fast score … --signals "
            "embedding --out DIR`"
        )
    table = read_narrow(folder, ["row", "don", "ifd_ppl"])
    scored = ~np.isnan(table.column("don").to_numpy())
    rows = table.column("row").to_numpy()[scored]
    ifd = table.column("ifd_ppl").to_numpy()[scored]
    if model is not None:
        return Questions(rows, _of_records(folder, rows, ~np.isnan(ifd), model, memory), ifd)
    size = columns["embedding"].size
    _refuse_large(len(rows), size, memory)
    embeddings = np.full((len(rows), size), np.nan, np.float32)
    for found, vectors in _of_folder(folder):
        places = np.searchsorted(rows, found)
        known = places < len(rows)
        known[known] = rows[places[known]] == found[known]
        embeddings[places[known]] = vectors[known]
    return Questions(rows, embeddings, ifd)


def _of_folder(folder: ScoresFolder) -> Iterator[tuple[Rows, Floats]]:
    """By part the row numbers and vectors that are there."""
    from donod_fast.selection.out_of_core.loading import read_columns

    for part in range(folder.parts):
        table = read_columns(folder, part, ["row", "embedding"])
        column = table.column("embedding").combine_chunks()
        there = column.is_valid().to_numpy(zero_copy_only=False)
        yield (
            table.column("row").to_numpy()[there],
            column.drop_null().flatten().to_numpy().reshape(int(there.sum()), column.type.list_size),
        )


def _of_records(
    folder: ScoresFolder, rows: Rows, wanted: npt.NDArray[np.bool_], model: str, memory: int | None
) -> Floats:
    """Embeddings of the questions of some rows; NaN for the others, and for records that ask nothing."""
    from donod_fast.data.formats import to_sample
    from donod_fast.data.types import SampleError
    from donod_fast.models.sentence_embeddings import embed_texts, load_embedder, question_text

    format = str(folder.manifest["masks"]["format"])
    place = {int(row): at for at, row in enumerate(rows.tolist()) if wanted[at]}
    corpus = folder.reopened()
    embedder = load_embedder(model)
    embeddings: Floats | None = None
    held: list[tuple[int, str]] = []

    def embed() -> None:
        nonlocal embeddings
        vectors = embed_texts([text for _, text in held], embedder)
        if embeddings is None:
            _refuse_large(len(rows), vectors.shape[1], memory)
            embeddings = np.full((len(rows), vectors.shape[1]), np.nan, np.float32)
        embeddings[[at for at, _ in held]] = vectors
        held.clear()

    for record in corpus.records() if place else ():
        if record.row not in place:
            continue
        try:
            text = question_text(to_sample(record, format)[0])
        except SampleError:
            continue
        if text.strip():
            held.append((place[record.row], text))
        if len(held) >= _CHUNK:
            embed()
    embed()
    assert embeddings is not None
    return embeddings


def _refuse_large(rows: int, size: int, memory: int | None) -> None:
    needed = 3 * 4 * rows * size  # theirs, those that are clustered, and what K-Means holds
    if memory is not None and needed > memory:
        raise InputError(
            f"kmeans-ifd holds all embeddings in memory: {rows:,} of {size} numbers take about {needed / 2**30:.2g} "
            "GiB; give more by --memory, or take a method that ranks by a column"
        )


__all__ = ["CLUSTERS", "KEEP", "KMEANS_IFD", "SEED", "Chosen", "ClusterCount", "Questions", "choose", "read_questions"]
