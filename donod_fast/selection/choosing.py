"""What ``donod-fast select`` and ``Scores.select`` have in common: from options to the rows that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from donod_fast.errors import InputError
from donod_fast.selection.filter_options import FilterOptions
from donod_fast.selection.settings import KMEANS_IFD, KeepOptions, RankOptions

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.rankers import Engine, Kept

BY_THRESHOLD = "don-threshold"
"""The method that keeps the rows above a DON instead of a share."""


def refuse_no_amount(how: RankOptions, choice: KeepOptions) -> None:
    """Refuse options that do not say how much to keep.

    Raises:
        InputError: names the option, and values for it.
    """
    if choice.keep is None and how.method not in (BY_THRESHOLD, KMEANS_IFD):
        raise InputError("say how much to keep: --keep 0.3, --keep 30% or --keep 2000")


def keeps_one_row(choice: KeepOptions) -> bool:
    """Whether ``keep`` is the count 1, which many mean as the share 1.0."""
    return isinstance(choice.keep, int) and not isinstance(choice.keep, bool) and choice.keep == 1


@dataclass(frozen=True)
class Choice:
    """Rows that were chosen, while their ranking is open.

    Attributes:
        options: how rows were ranked, with the preferred end in the method's name.
        ranking: the ranking of all rows.
        kept: the chosen rows.
        before: how many rows were kept before conditions left some of them out.
    """

    options: RankOptions
    ranking: Engine
    kept: Kept
    before: int


@contextmanager
def choosing(
    folder: ScoresFolder, how: RankOptions, choice: KeepOptions, filters: FilterOptions = FilterOptions()
) -> Iterator[Choice]:
    """Rank the rows of a finished folder, and choose the ones to keep.

    Args:
        folder: the scores.
        how: how rows are ranked.
        choice: how many are kept; ``prefer`` is applied to the method.
        filters: which of the kept rows are chosen.

    Raises:
        InputError: a bad option, or no row is kept.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.selection.filtering import narrowed
    from donod_fast.selection.rankers import ranked

    refuse_no_amount(how, choice)
    options = replace(how, method=choice.method(how.method))
    with ranked(folder, options) as ranking:
        kept = ranking.keep(choice.keep, choice.don_threshold, choice.don_quantile, choice.order == "best")
        if len(kept.rows) == 0:
            raise InputError(f"no row has DON ≥ {choice.don_threshold}; the largest is {ranking.highest:.6g}")
        yield Choice(options, ranking, narrowed(folder, kept, filters, lr=how.lr), len(kept.rows))


__all__ = ["BY_THRESHOLD", "Choice", "choosing", "keeps_one_row", "refuse_no_amount"]
