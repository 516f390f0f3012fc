"""Variety on top of a ranking: without duplicates (``--dedupe``), and spread over the embeddings (``--diversify``).

1. Over all ranked rows, best first, a row that is near to a kept one is dropped (``dedupe``).
2. ``--keep`` says how many rows are kept: a share is one of all ranked rows, duplicates included, and the rows that are
   no duplicates fill it, best first. With groups this holds for each group, while duplicates are found across groups.
   A threshold of DON keeps what is above it and no duplicate.
3. With ``--diversify`` the rows are chosen among the best ``pool`` × k of each group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError
from donod_fast.selection.keeping import check_wanted
from donod_fast.selection.rankers.interface import Engine, Kept, Ordered, OrderedEngine
from donod_fast.selection.settings.ordering import RankOptions
from donod_fast.selection.settings.variety import NONE, POOL, checked_threshold
from donod_fast.selection.similar_sets import SimilarSets

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.explain import ExplainedRow
    from donod_fast.selection.following import Following
    from donod_fast.selection.subset import Records

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def varied(engine: OrderedEngine, folder: ScoresFolder, options: RankOptions) -> Engine:
    """The engine itself, or one that drops duplicates or spreads the rows, if the options ask for it."""
    return engine if options.dedupe == NONE and options.diversify is None else Varied(engine, folder, options)


class Varied:
    """See the module's docstring; what it does not choose is that of the inner engine."""

    def __init__(self, engine: OrderedEngine, folder: ScoresFolder, options: RankOptions) -> None:
        self._engine, self._folder, self._options = engine, folder, options
        self.name = engine.name

    @property
    def scored(self) -> int:
        return self._engine.scored

    @property
    def left_out(self) -> Mapping[str, int]:
        return self._engine.left_out

    @property
    def highest(self) -> float:
        return self._engine.highest

    @property
    def following(self) -> Following | None:
        return self._engine.following

    def order(self) -> tuple[Any, Any]:
        return self._engine.order()

    def explain(self, corpus: Records, count: int, width: int, encoding: str) -> list[ExplainedRow]:
        return self._engine.explain(corpus, count, width, encoding)

    def keep(
        self, keep: float | int | None, don_threshold: float | None, don_quantile: float | None, best_first: bool
    ) -> Kept:
        from donod_fast.selection.out_of_core import RowSet
        from donod_fast.selection.out_of_core.shares import shares

        options = self._options
        check_wanted(options.method, self.scored, self._folder.rows, keep, don_threshold, don_quantile)
        if keep is None and options.diversify is not None:
            raise InputError(
                f"--diversify {options.diversify} chooses a number of rows, and don-threshold has none; "
                "use --method don with --keep"
            )
        ranked = self._engine.ordered()
        sets: list[SimilarSets] = []
        single = np.ones(len(ranked.rows), bool)
        if options.dedupe != NONE:
            sets.append(self._duplicates(ranked, single))
        if keep is None:
            above = self._engine.keep(keep, don_threshold, don_quantile, False)
            within = RowSet.of(above.rows, ranked.total).flags(0, ranked.total)[ranked.rows]
            kept, passed_over = within & single, int((within & ~single).sum())
        else:
            kept, passed_over = _filled(ranked, single, keep, 1.0 if options.diversify is None else self._pool)
            if options.diversify is not None:
                kept, spread = self._spread(ranked, kept, keep)
                sets.append(spread)
        rows = self._listed(ranked, kept, best_first)
        missing = 0 if keep is None else sum(shares(keep, ranked.scored)) - len(rows)
        return Kept(rows, self._counts(ranked, kept), tuple(sets), passed_over, missing)

    @property
    def _pool(self) -> float:
        return POOL if self._options.pool is None else self._options.pool

    def _duplicates(self, ranked: Ordered, single: Flags) -> SimilarSets:
        from donod_fast.selection.dedupe.finding import near_of_rows

        options = self._options
        near = near_of_rows(
            self._folder,
            ranked.rows,
            options.dedupe,
            options.dedupe_threshold,
            model=options.embedding_model,
            memory=options.memory,
            temp_dir=options.temp_dir,
        )
        single[near.dropped] = False
        least = checked_threshold(options.dedupe, options.dedupe_threshold)
        rows = ranked.rows
        return SimilarSets(
            options.dedupe, least, rows[near.kept], rows[near.dropped], near.similarity, len(rows), near.empty
        )

    def _spread(self, ranked: Ordered, pool: Flags, keep: float | int) -> tuple[Flags, SimilarSets]:
        """Choose within the pool of each group."""
        from donod_fast.selection.diversity import spread
        from donod_fast.selection.embeddings import read_embeddings
        from donod_fast.selection.out_of_core.shares import shares

        options, kind = self._options, self._options.diversify
        assert kind is not None
        candidates = np.flatnonzero(pool)
        by_row = candidates[np.argsort(ranked.rows[candidates], kind="stable")]
        found = read_embeddings(
            self._folder,
            ranked.rows[by_row],
            np.ones(len(by_row), bool),
            f"--diversify {kind}",
            options.embedding_model,
            memory=options.memory,
        )
        embeddings = found[np.argsort(by_row, kind="stable")]  # best first
        del found
        kept = np.zeros(len(pool), bool)
        links: list[tuple[Places, Places, Any]] = []
        without = 0
        groups = np.zeros(len(candidates), np.int32) if ranked.groups is None else ranked.groups[candidates]
        for group, count in enumerate(shares(keep, ranked.scored)):
            members = np.flatnonzero(groups == group)
            chosen = spread(kind, embeddings[members], min(count, len(members)), seed=options.seed)
            places = candidates[members]
            kept[places[chosen.chosen]] = True
            links.append((places[chosen.nearest], places[chosen.others], chosen.cosine))
            without += chosen.without
        near, others, cosine = (np.concatenate([one[at] for one in links]) for at in range(3))
        rows = ranked.rows
        return kept, SimilarSets(kind, None, rows[near], rows[others], cosine, len(candidates), without)

    def _listed(self, ranked: Ordered, kept: Flags, best_first: bool) -> Any:
        """The kept rows best first, or as a set of rows where the engine does without an order."""
        from donod_fast.selection.out_of_core import RowSet
        from donod_fast.selection.out_of_core.ranked import check_best_first
        from donod_fast.selection.rankers.larger_than_memory import RECORD_BYTES

        rows = ranked.rows[kept]
        if self.name != "duckdb":
            return rows.tolist()
        if best_first:
            check_best_first(len(rows), self._options.memory // RECORD_BYTES)
            return rows.tolist()
        return RowSet.of(rows, ranked.total)

    def _counts(self, ranked: Ordered, kept: Flags) -> tuple[Any, ...]:
        from donod_fast.selection.out_of_core import GroupCount

        if self._options.by is None:
            return ()
        size = len(ranked.names)
        assert ranked.groups is not None
        numbers = np.bincount(ranked.groups[kept], minlength=size).tolist()
        return tuple(
            GroupCount(*one) for one in zip(ranked.names, ranked.all_rows, ranked.scored, numbers, strict=True)
        )


def _filled(ranked: Ordered, single: Flags, keep: float | int, pool: float) -> tuple[Flags, int]:
    """Fill the share of each group with its best rows that are no duplicates, times ``pool``.

    Returns:
        Which places are kept, and how many duplicates are above the last kept place of their group.
    """
    from donod_fast.selection.out_of_core.shares import shares

    wanted = np.array([math.ceil(count * pool) for count in shares(keep, ranked.scored)], np.int64)
    groups = np.zeros(len(single), np.int64) if ranked.groups is None else ranked.groups.astype(np.int64)
    order = np.argsort(groups, kind="stable")  # by group, within it best first
    sizes = np.bincount(groups, minlength=len(wanted))
    begins = np.cumsum(sizes) - sizes
    taken = np.cumsum(single[order])
    before = np.where(begins > 0, taken[begins - 1], 0)[groups[order]]
    within = (taken - before <= wanted[groups[order]]) & single[order]
    kept = np.zeros(len(single), bool)
    kept[order] = within
    last = np.full(len(wanted), -1, np.int64)
    np.maximum.at(last, groups[kept], np.flatnonzero(kept))
    passed = ~single & (np.arange(len(single)) < last[groups])
    return kept, int(passed.sum())


__all__ = ["Varied", "varied"]
