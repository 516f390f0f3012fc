"""How rows are ordered and chosen by a method: settings as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from donod_fast.errors import InputError
from donod_fast.selection.column_methods import OWN_METHODS
from donod_fast.selection.settings.names import (
    BY_EMBEDDINGS,
    CHOOSING,
    CLUSTER_BALANCED,
    CLUSTERS,
    ENGINES,
    RANKING,
    RUNNING,
    check_memory,
    normalise_option,
    parse_size,
    parse_weights,
)
from donod_fast.selection.settings.variety import (
    DEDUPES,
    DIVERSIFIES,
    EMBEDDING,
    NONE,
    POOL,
    checked_pool,
    checked_threshold,
)
from donod_fast.system.options import check_choices, option


@dataclass(frozen=True)
class OrderOptions:
    """How the rows of a scores folder are ordered.

    Attributes:
        method: a name of ``column_methods.OWN_METHODS``, a number column of the scores, one of :data:`BY_EMBEDDINGS`,
            or ``NAME-round-robin``; ``NAME@high`` or ``NAME@low`` says which end of a column is preferred.
        weights: of DON and NOD.
        normalise: what TOPSIS divides the columns by, one of ``kernels.topsis.NORMALISATIONS``.
        lr: rank as if scored at this learning rate; None for the folder's.
        seed: for the methods ``random``, ``kcenter`` and ``cluster-balanced``.
        checkpoint: scores folders of further checkpoints, for a column that is averaged over them (``checkpoints.py``).
        engine: one of :data:`ENGINES`.
        memory: bytes that the ranking may use.
        temp_dir: folder for what does not fit in memory; None for the system's.

    Raises:
        InputError: the engine or the normalisation is unknown, or the memory is below one byte.
    """

    method: str = option(
        "topsis",
        help=f"Method: {', '.join(OWN_METHODS)}; a number column of SCORES; ifd or ifd-loss (without rows whose IFD is "
        f"1 or more); {', '.join(BY_EMBEDDINGS)}; rds-round-robin.",
        panel=RANKING,
        completions=(*OWN_METHODS, "ifd", "ifd-loss", *BY_EMBEDDINGS, "rds-round-robin"),
    )
    weights: tuple[float, float] = option(
        text="0.5,0.5", parse=parse_weights, help="Weights of DON and NOD.", panel=RANKING
    )
    normalise: str = normalise_option()
    lr: float | None = option(None, help="Rank as if scored at this learning rate; needs no model.", panel=RANKING)
    seed: int = option(0, help="Seed of random, kcenter and cluster-balanced.", panel=RANKING)
    checkpoint: tuple[str, ...] = option(
        (),
        help="Scores of the same data by a further checkpoint: average the column, weighted by --lr of each scoring; "
        "may be repeated.",
        panel=RANKING,
    )
    engine: str = option(
        "auto", help="Ranking engine: memory, duckdb (larger than memory) or auto.", panel=RUNNING, choices=ENGINES
    )
    memory: int = option(
        text="2GiB", parse=parse_size, help="Memory limit for ranking, for example 2GiB.", panel=RUNNING
    )
    temp_dir: Path | None = option(None, help="Folder for data that does not fit in memory.", panel=RUNNING)

    def __post_init__(self) -> None:
        check_choices(self)
        check_memory(self.memory)


@dataclass(frozen=True)
class RankOptions(OrderOptions):
    """How the rows of a subset are chosen. See :class:`OrderOptions`.

    Attributes:
        by: name of a carried column, of a column that paths give, or ``file``: keep a share of each group.
        clusters: number of clusters of :data:`IN_CLUSTERS`.
        within: for ``cluster-balanced`` the column that orders the rows of a cluster; None for a random draw.
        embedding_model: sentence-transformers model of :data:`BY_EMBEDDINGS`, of ``embedding`` duplicates and of
            ``diversify``; None for the folder's own embeddings.
        dedupe: keep one row of each set of duplicates, the best by the method; one of ``variety.DEDUPES``.
        dedupe_threshold: least similarity of two duplicates; None for the default of the kind.
        diversify: spread the rows over the embeddings; one of ``variety.DIVERSIFIES``, or None.
        pool: candidates for each row that ``diversify`` keeps; None for ``variety.POOL``.

    Raises:
        InputError: an option is given for a method or a choice that does not use it, or has a wrong value.
    """

    by: str | None = option(
        None, help="Keep a share of each group: a column of `score --carry` or of paths, or file.", panel=CHOOSING
    )
    clusters: int = option(
        CLUSTERS, help="Number of clusters of kmeans-ifd and cluster-balanced.", panel=CHOOSING, minimum=1
    )
    within: str | None = option(
        None,
        help="For cluster-balanced: take the rows of a cluster by this column, such as loss or length@high.",
        panel=CHOOSING,
        shown="a random draw",
    )
    embedding_model: str | None = option(
        None,
        help="Sentence-transformers model of kmeans-ifd, kcenter, cluster-balanced, --dedupe embedding and "
        "--diversify.",
        panel=CHOOSING,
        shown="the column embedding",
    )
    dedupe: str = option(
        NONE,
        help=f"Keep one row of each set of duplicates, the best by the method: {', '.join(DEDUPES)}. "
        "minhash finds nearly equal texts, embedding nearly equal questions.",
        panel=CHOOSING,
        choices=DEDUPES,
    )
    dedupe_threshold: float | None = option(
        None,
        help="Least similarity of two duplicates: Jaccard of word 5-grams (minhash), or cosine (embedding).",
        panel=CHOOSING,
        shown="0.8 for minhash, 0.95 for embedding",
    )
    diversify: str | None = option(
        None,
        help=f"Spread the rows over the embeddings, among the best by the method: {', '.join(DIVERSIFIES)}.",
        panel=CHOOSING,
        choices=DIVERSIFIES,
    )
    pool: float | None = option(
        None,
        help="Candidates of --diversify for each row to keep, the best by the method.",
        panel=CHOOSING,
        shown=f"{POOL:g}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_variety()
        if self.within is not None and self.method != CLUSTER_BALANCED:
            raise InputError(f"--within is for --method {CLUSTER_BALANCED}, got {self.method}")
        embeds = self.method in BY_EMBEDDINGS or self.dedupe == EMBEDDING or self.diversify is not None
        if self.embedding_model is not None and not embeds:
            raise InputError(
                f"--embedding-model is for the methods {', '.join(BY_EMBEDDINGS)}, which embed the questions, for "
                f"--dedupe {EMBEDDING} and for --diversify; got {self.method}"
            )

    def _check_variety(self) -> None:
        for name, given in (("dedupe", self.dedupe != NONE), ("diversify", self.diversify is not None)):
            if given and self.method in BY_EMBEDDINGS:
                raise InputError(
                    f"--{name} needs a ranking of all rows, and method {self.method} chooses rows without ranking the "
                    "others; rank by a column, for example --method topsis"
                )
        if self.dedupe != NONE:
            checked_threshold(self.dedupe, self.dedupe_threshold)
        elif self.dedupe_threshold is not None:
            raise InputError("--dedupe-threshold is for --dedupe minhash and --dedupe embedding")
        if self.diversify is None and self.pool is not None:
            raise InputError(f"--pool is for --diversify {', '.join(DIVERSIFIES)}")
        if self.pool is not None:
            checked_pool(self.pool)


__all__ = ["OrderOptions", "RankOptions"]
