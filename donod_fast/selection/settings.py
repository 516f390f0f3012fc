"""How rows are ranked and chosen: settings as options."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError, suggest
from donod_fast.scoring.settings import DEFAULT_NORMALISE, NORMALISATIONS
from donod_fast.selection.column_methods import ENDS, OWN_METHODS
from donod_fast.selection.keeping import parse_keep
from donod_fast.selection.turn_names import turn_column
from donod_fast.system.options import check_choices, option

KMEANS_IFD = "kmeans-ifd"
KCENTER = "kcenter"
CLUSTER_BALANCED = "cluster-balanced"
BY_EMBEDDINGS = (KMEANS_IFD, KCENTER, CLUSTER_BALANCED)
"""Methods that choose rows by their embeddings, and do not rank the others."""
IN_CLUSTERS = (KMEANS_IFD, CLUSTER_BALANCED)
"""Methods that keep a share of each cluster."""
CLUSTERS = 10
ENGINES = ("auto", "memory", "duckdb")
ORDERS = ("first", "second")
CORRELATIONS = ("spearman", "kendall")
ROW_ORDERS = ("input", "best")
"""Orders in which a subset is written: that of the corpus, or best first."""

RANKING = "Ranking"
RUNNING = "Running"
CHOOSING = "Choosing"
OUTPUT = "Output"
MIB = 1 << 20

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str) -> int:
    """Read ``"2GiB"``, ``"500MB"`` or a number of bytes.

    Raises:
        InputError: the text is not a size.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B)?", text.strip(), re.IGNORECASE)
    unit = "" if found is None else (found[2] or "").upper()
    if found is None or unit not in _UNITS or float(found[1]) == 0:
        raise InputError(f"--memory {text!r} is not a size; write for example 2GiB or 500MB")
    return int(float(found[1]) * _UNITS[unit])


def parse_weights(text: str) -> tuple[float, float]:
    """Read the weights of DON and NOD, as ``"0.5,0.5"``.

    Raises:
        InputError: the text is not two numbers.
    """
    try:
        don, nod = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--weights must be two numbers with a comma, for example 0.5,0.5; got {text!r}") from None
    return don, nod


def _names(given: list[str] | None) -> tuple[str, ...]:
    """Names that were given one by one, or several at once with commas."""
    return tuple(name for text in given or () for name in text.split(",") if name)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _bytes(mebibytes: int) -> int:
    return mebibytes * MIB


def normalise_option(panel: str = RANKING) -> Any:
    """A field with what TOPSIS divides the columns by: the option ``--normalise``."""
    return option(
        DEFAULT_NORMALISE,
        help=f"What TOPSIS divides DON and NOD by: {', '.join(NORMALISATIONS)}.",
        panel=panel,
        choices=NORMALISATIONS,
    )


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
        InputError: the engine or the normalisation is unknown.
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


@dataclass(frozen=True)
class RankOptions(OrderOptions):
    """How the rows of a subset are chosen. See :class:`OrderOptions`.

    Attributes:
        by: name of a carried column, or ``file``: keep a share of each group.
        clusters: number of clusters of :data:`IN_CLUSTERS`.
        within: for ``cluster-balanced`` the column that orders the rows of a cluster; None for a random draw.
        embedding_model: sentence-transformers model of :data:`BY_EMBEDDINGS`; None for the folder's own embeddings.

    Raises:
        InputError: ``within`` or ``embedding_model`` is given for a method that does not use it.
    """

    by: str | None = option(
        None, help="Keep a share of each group: a column kept by `score --carry`, or file.", panel=CHOOSING
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
        help="Sentence-transformers model of kmeans-ifd, kcenter and cluster-balanced.",
        panel=CHOOSING,
        shown="the column embedding",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.within is not None and self.method != CLUSTER_BALANCED:
            raise InputError(f"--within is for --method {CLUSTER_BALANCED}, got {self.method}")
        if self.embedding_model is not None and self.method not in BY_EMBEDDINGS:
            raise InputError(
                f"--embedding-model is for the methods {', '.join(BY_EMBEDDINGS)}, which embed the questions; "
                f"got {self.method}"
            )


@dataclass(frozen=True)
class PreferOptions:
    """Which end of a column is preferred.

    Attributes:
        prefer: ``"high"`` or ``"low"``; None for the better end of the column.

    Raises:
        InputError: ``prefer`` is neither.
    """

    prefer: str | None = option(
        None,
        help="For a column: prefer its high or its low values.",
        panel=RANKING,
        shown="its better end",
        completions=ENDS,
    )

    def __post_init__(self) -> None:
        if self.prefer is not None and self.prefer not in ENDS:
            raise InputError(f"--prefer must be {' or '.join(ENDS)}, got {self.prefer!r}{suggest(self.prefer, ENDS)}")

    def method(self, name: str) -> str:
        """The name of a method together with the preferred end.

        Raises:
            InputError: an end is preferred for a method that does not rank by one column.
        """
        if self.prefer is None:
            return name
        if name == KMEANS_IFD:
            raise InputError(f"method {KMEANS_IFD} keeps high IFDs; remove --prefer")
        if name in BY_EMBEDDINGS or turn_column(name) is not None:
            raise InputError(f"the order of method {name} is fixed; remove --prefer")
        return f"{name}@{self.prefer}"


@dataclass(frozen=True)
class KeepOptions(PreferOptions):
    """How many rows a subset has, and their order. See :class:`PreferOptions`.

    Attributes:
        keep: fraction of the ranked rows (float) or count (int); None for ``don-threshold`` and for the default of
            ``kmeans-ifd``.
        don_threshold: for ``don-threshold``: smallest DON to keep.
        don_quantile: for ``don-threshold``: smallest quantile of DON to keep.
        order: one of :data:`ROW_ORDERS`.

    Raises:
        InputError: names the setting with a wrong value.
    """

    keep: float | int | None = option(
        None,
        parse=parse_keep,
        help="How many rows to keep: 0.3 or 30% of the ranked rows, or a count. kmeans-ifd keeps 0.4 by default.",
        panel=CHOOSING,
    )
    don_threshold: float | None = option(None, help="For don-threshold: smallest DON to keep.", panel=CHOOSING)
    don_quantile: float | None = option(
        None, help="For don-threshold: smallest quantile of DON to keep.", panel=CHOOSING
    )
    order: str = option(
        ROW_ORDERS[0],
        help="Write rows in input order (input) or best first (best).",
        panel=OUTPUT,
        completions=ROW_ORDERS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_row_order(self.order)


def check_row_order(order: str) -> None:
    """Refuse an order that is not one of :data:`ROW_ORDERS`.

    Raises:
        InputError: names the orders.
    """
    if order not in ROW_ORDERS:
        raise InputError(f"order must be {' or '.join(ROW_ORDERS)}, got {order!r}{suggest(order, ROW_ORDERS)}")


@dataclass(frozen=True)
class CompareOptions:
    """How the criteria of a scores folder are compared.

    Attributes:
        columns: methods and columns to compare; empty for all number columns.
        normalise: as for :class:`OrderOptions`.
        keep: fraction or count that each criterion selects for the overlaps.
        correlation: ``"spearman"`` or ``"kendall"`` (τ-b).
        sample: number of rows drawn for the comparison, None for all.
        seed: of the draw.
        embedding_model: as for :class:`RankOptions`.
        memory: bytes that the comparison may use.
    """

    columns: tuple[str, ...] = option(
        text="",
        parse=_listed,
        help="Methods and columns to compare, separated by commas, for example topsis,loss@high,el2n,kmeans-ifd.",
        panel=CHOOSING,
        shown="all number columns",
    )
    keep: float | int = option(
        text="0.3", parse=parse_keep, help="Rows that each criterion selects: 0.3 or 30%, or a count.", panel=CHOOSING
    )
    correlation: str = option(
        "spearman",
        help="Rank correlation: spearman or kendall (tau-b).",
        panel=CHOOSING,
        completions=CORRELATIONS,
    )
    sample: int | None = option(None, help="Compare so many random rows instead of all.", panel=CHOOSING)
    seed: int = option(0, help="Seed of --sample.", panel=CHOOSING)
    embedding_model: str | None = option(
        None, help="Sentence-transformers model of kmeans-ifd.", panel=CHOOSING, shown="the column embedding"
    )
    memory: int = option(
        text="2GiB", parse=parse_size, help="Memory limit for ranking, for example 2GiB.", panel=RUNNING
    )
    normalise: str = normalise_option()

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class DualSettings:
    """How the gradient interaction matrix is computed, and what is kept of it.

    Attributes:
        layers: see :func:`donod_fast.selection.dual.layers.choose_layers`.
        order: ``"first"`` or ``"second"`` (exact Gauss–Newton); utility, importance, subset and mask are of that order.
        lr: η. To first order it is a factor, and changes no choice.
        keep: fraction or count of the scored candidates for the subset.
        parameters: share of the entries of the chosen parameters for the mask.
        masks: format, template, which turns are scored, length limit; of candidates and reference alike.
        token_budget: slots of a batch.
        workspace_bytes: memory that the head computation may use.

    Raises:
        InputError: names the setting with a wrong value.
    """

    layers: tuple[str, ...] = option(
        text=[],
        parse=_names,
        help="Linear layers by name or glob, separated by commas; may be repeated.",
        panel=CHOOSING,
        shown="those of the last decoder layer, and the output layer",
    )
    order: str = option("first", help="Order of the expansion: first, or second (exact Gauss-Newton).", panel=CHOOSING)
    lr: float = option(0.01, help="Step size; it only weighs second order against first.", panel=CHOOSING)
    keep: float | int = option(
        text="0.3", parse=parse_keep, help="Size of the subset: 0.3 or 30% of the scored rows, or a count.",
        panel=CHOOSING,
    )  # fmt: skip
    parameters: float = option(0.1, help="Size of the mask: share of the entries of the chosen layers.", panel=CHOOSING)
    masks: MaskSettings = field(default_factory=MaskSettings)
    token_budget: int = option(2048, help="Token slots of a batch, padding included.", panel=RUNNING, minimum=1)
    workspace_bytes: int = option(
        text=256,
        parse=_bytes,
        name="workspace",
        help="Memory in MiB that the head computation may use.",
        panel=RUNNING,
        minimum=1,
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant, before a model is loaded."""
        if self.order not in ORDERS:
            raise InputError(f"order must be first or second, got {self.order!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"lr must be a finite number above zero, got {self.lr!r}")
        if not 0.0 < self.parameters <= 1.0:
            raise InputError(f"the share of parameters must be above 0 and at most 1, got {self.parameters!r}")
        if self.token_budget < 1:
            raise InputError(f"token budget must be at least 1, got {self.token_budget}")


__all__ = [
    "BY_EMBEDDINGS",
    "CLUSTERS",
    "CLUSTER_BALANCED",
    "CORRELATIONS",
    "ENGINES",
    "IN_CLUSTERS",
    "KCENTER",
    "KMEANS_IFD",
    "ORDERS",
    "ROW_ORDERS",
    "CompareOptions",
    "DualSettings",
    "KeepOptions",
    "OrderOptions",
    "PreferOptions",
    "RankOptions",
    "check_row_order",
    "normalise_option",
    "parse_size",
    "parse_weights",
]
