"""Methods of a report: the ranks are those of ``select``, and what is said about methods follows its rules."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranked_folders import drawn, folder_of

from donod_fast.errors import InputError
from donod_fast.reports.agreement import agreement, methods_that_are_one, warn_of_pairs
from donod_fast.reports.columns import category, histogram
from donod_fast.reports.duplicates import exact_sets
from donod_fast.reports.methods import (
    UNRANKED,
    Method,
    default_methods,
    length_groups,
    length_warning,
    ranked_methods,
    totals_of,
)
from donod_fast.reports.sampling import ENDS, draw
from donod_fast.reports.scored_table import ScoredTable, Texts, read_scored
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.rankers import RankOptions, ranked

PARTS = (60, 100, 40, 100)
METHODS = ("topsis", "don", "nod", "loss", "weighted", "pareto", "random", "nodon", "loss@high", "ifd", "more@low")


def made(place: Path, *, grid: bool = False, seed: int = 0) -> ScoresFolder:
    """A folder with ties, rows without a score, and two further columns."""
    count = sum(PARTS)
    random = np.random.default_rng(seed + 1)
    more: dict[str, Any] = {
        "ifd": {"ifd_ppl": random.choice([0.5, 0.9, 1.0, 1.5, np.nan], count)},
        "own": {"more": random.integers(0, 9, count).astype(float)},
    }
    carried = {"source": random.choice(["web", "code", "math"], count, p=[0.7, 0.2, 0.1]).tolist()}
    return folder_of(place, drawn(count, seed, grid=grid), PARTS, carried, signals=more)


@pytest.mark.parametrize("grid", [False, True])
def test_ranks_below_k_are_the_rows_that_select_keeps(grid: bool, tmp_path: Path) -> None:
    folder = made(tmp_path, grid=grid)
    table = read_scored(folder)
    methods, said = ranked_methods(folder, table, METHODS, 0.3)
    assert not said and [method.name for method in methods] == list(METHODS)
    for method in methods:
        with ranked(folder, RankOptions(method=method.name)) as ranking:
            assert method.ranked == ranking.scored
            for keep in (0.3, 0.05, 1.0, 17):
                wanted = ranking.keep(keep, None, None, False).rows
                assert table.row[method.order[: method.kept(keep)]].tolist() == [int(row) for row in wanted]
        there = method.ranks != UNRANKED
        assert sorted(method.ranks[there]) == list(range(method.ranked))
        assert np.array_equal(method.ranks[method.order], np.arange(method.ranked))


def test_default_methods_are_those_that_the_columns_allow(tmp_path: Path) -> None:
    table = read_scored(made(tmp_path))
    found = default_methods(table)
    assert found[0] == "topsis" and "ifd" in found and "ifd_ppl" in found
    assert "more" not in found  # its better end is not known


def test_an_unknown_method_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    folder = made(tmp_path)
    with pytest.raises(InputError, match=r"unknown method 'topsi'.*did you mean 'topsis'"):
        ranked_methods(folder, read_scored(folder), ("topsi",), 0.3)


def test_an_infinite_value_leaves_out_a_method_that_nobody_named(tmp_path: Path) -> None:
    columns = drawn(sum(PARTS))
    columns["loss"] = np.where(np.isnan(columns["don"]), np.nan, 1.0)
    columns["loss"][np.flatnonzero(~np.isnan(columns["don"]))[5]] = np.inf
    folder = folder_of(tmp_path, columns, PARTS)
    table = read_scored(folder)
    methods, said = ranked_methods(folder, table, (), 0.3)
    assert not methods and all("infinite" in text for text in said)  # each compares DON, NOD and loss
    with pytest.raises(InputError, match="infinite"):
        ranked_methods(folder, table, ("topsis",), 0.3)


def test_two_methods_with_one_order_are_called_one(tmp_path: Path) -> None:
    count = sum(PARTS)
    don = np.random.default_rng(0).normal(size=count)
    folder = folder_of(tmp_path, {"don": don, "nod": -don + 5, "loss": np.random.default_rng(1).random(count)}, PARTS)
    table = read_scored(folder)
    methods, _ = ranked_methods(folder, table, ("don", "nod", "loss", "random"), 0.3)
    found = agreement(table, methods, 0.3)
    assert found is not None
    assert [(later, earlier) for later, earlier, _ in methods_that_are_one(found)] == [("nod", "don")]
    said = warn_of_pairs(found, methods)
    assert len(said) == 1 and "DON and NOD give nearly the same order" in said[0]
    assert [len(method.warnings) for method in methods] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("order", "word"),
    [("length", "long"), ("minus length", "short"), ("random", None), ("mostly length", "long")],
)
def test_a_method_that_keeps_mostly_long_or_short_rows_says_so(order: str, word: str | None) -> None:
    draw_of = np.random.default_rng(0)
    lengths = draw_of.permutation(1000).astype(np.float64) + 1
    keys = {
        "length": -lengths,
        "minus length": lengths,
        "random": draw_of.random(1000),
        "mostly length": -lengths + draw_of.normal(0, 400, 1000),
    }
    table = table_of(lengths)
    best = np.argsort(keys[order], kind="stable")
    method = Method("m", np.argsort(best).astype(np.uint32), best)
    kept, median = lengths[best[:300]], np.median(lengths)
    share = (kept > median).mean()
    assert (share >= 2 / 3, share <= 1 / 3) == (word == "long", word == "short")
    said = length_warning(method, table, 0.3)
    assert (said is None) == (word is None)
    if said is not None:
        assert f"keeps mostly {word} rows" in said and f"{kept.mean():,.0f} tokens" in said


def test_nothing_is_said_of_lengths_that_are_equal_or_few() -> None:
    order = np.arange(100)
    assert length_warning(Method("m", order.astype(np.uint32), order), table_of(np.full(100, 7.0)), 0.3) is None
    assert length_warning(Method("m", order.astype(np.uint32), order), table_of(np.arange(100.0)), 0.1) is None
    assert length_warning(Method("m", order.astype(np.uint32), order), table_of(np.arange(100.0)), 1.0) is None
    assert length_warning(Method("m", order.astype(np.uint32), order), table_of(np.arange(100.0)), 0.5) is not None


def test_totals_along_the_ranks_are_sums_over_all_ranked_rows(tmp_path: Path) -> None:
    folder = made(tmp_path)
    table = read_scored(folder)
    table.numbers["tokens"] = np.random.default_rng(3).integers(1, 90, len(table)).astype(np.float64)
    source = category(table.texts["record.source"])
    for method in ranked_methods(folder, table, ("topsis", "ifd"), 0.3)[0]:
        found = totals_of(method, table, {"source": source})
        edges = found["edges"]
        assert edges[0] == 0 and edges[-1] == method.ranked and len(found["tokens"]) == len(edges) - 1
        for at, (low, high) in enumerate(itertools.pairwise(edges)):
            here = method.order[low:high]
            assert found["tokens"][at] == table.numbers["scored_tokens"][here].sum()
            assert found["lengths"][at] == table.lengths[here].sum()
            for group, codes in (("source", source.codes), ("length", length_groups(table).codes)):
                for code, counts in enumerate(found["groups"][group]["counts"]):
                    assert counts[at] == (codes[here] == code).sum()


def test_a_sample_has_each_source_and_each_stretch_of_ranks() -> None:
    size, most = 20_000, 2_000
    random = np.random.default_rng(0)
    order = random.permutation(size)
    ranks = np.argsort(order).astype(np.uint32)
    source = category(Texts(random.choice(3, size, p=[0.7, 0.25, 0.05]).astype(np.int32), ["a", "b", "c"]))
    method = Method("topsis", ranks, order)
    found = draw(size, most, [method], 0.3, source)
    assert len(found.places) <= most and np.array_equal(found.places, np.unique(found.places))
    assert np.array_equal(found.places, draw(size, most, [method], 0.3, source).places)
    ends = np.concatenate([order[:40], order[-40:], order[5960:6040]])
    assert np.isin(ends, found.places).all()
    inner = (ranks > ENDS) & (ranks < size - ENDS) & (abs(ranks.astype(int) - 6000) > ENDS)
    chosen = np.zeros(size, bool)
    chosen[found.places] = True
    rate = (most - len(ends)) / size
    for code in range(3):
        for low in range(0, size, 4000):
            stratum = (source.codes == code) & (ranks >= low) & (ranks < low + 4000)
            forced = chosen & stratum & ~inner
            assert abs((chosen & stratum).sum() - stratum.sum() * rate) <= 2 + forced.sum()
    assert found.text is not None and "stratified by rank by TOPSIS and by source" in found.text


def test_all_rows_are_shown_where_they_are_few() -> None:
    found = draw(100, 100, [], 0.3, None)
    assert found.text is None and found.places.tolist() == list(range(100))


def test_histograms_are_those_of_all_rows(tmp_path: Path) -> None:
    table = read_scored(made(tmp_path))
    assert sum(histogram(table.numbers["nod"])["counts"]) == len(table)


@pytest.mark.parametrize("seed", range(5))
def test_sets_of_equal_hashes_are_all_found_and_the_best_row_is_kept(seed: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 25, 60).astype(np.uint64) * np.uint64(2**58)
    table = table_of(np.ones(40))
    table.row = np.sort(random.choice(60, 40, replace=False))
    table.hashes, table.hashed, table.seen = hashes, np.arange(60), 61
    order = random.permutation(40)
    found = exact_sets(table, [Method("m", np.argsort(order).astype(np.uint32), order)])
    wanted = {
        tuple(np.flatnonzero(hashes == one).tolist()) for one in set(hashes.tolist()) if (hashes == one).sum() > 1
    }
    assert {tuple(one["rows"]) for one in found["shown"]} == wanted
    assert (found["sets"], found["rows"]) == (len(wanted), sum(map(len, wanted)))
    best_first = table.row[order].tolist()
    for one in found["shown"]:
        assert one["kept"] == next((row for row in best_first if row in one["rows"]), None)
    assert "1 rows have no hash" in found["text"]


def table_of(lengths: Any) -> ScoredTable:
    """A table of scored rows of which only the lengths matter."""
    table = ScoredTable.__new__(ScoredTable)
    table.row, table.numbers = np.arange(len(lengths)), {"tokens": lengths}
    return table
