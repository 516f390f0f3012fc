"""How the criteria of a scores folder are compared: settings as options."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.selection.keeping import parse_keep
from donod_fast.selection.settings.names import (
    CHOOSING,
    CORRELATIONS,
    RUNNING,
    check_memory,
    normalise_option,
    parse_size,
)
from donod_fast.system.options import check_choices, option, parse_names


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
        parse=parse_names,
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
        check_memory(self.memory)


__all__ = ["CompareOptions"]
