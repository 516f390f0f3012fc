"""Rank and keep: the preference of each method, the order of ties, the number of kept rows."""

from __future__ import annotations

import logging
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.topsis import topsis
from donod_fast.selection.column_methods import OWN_METHODS
from donod_fast.selection.keeping import keep, parse_keep
from donod_fast.selection.ranking import ScoreColumns, rank, rescale_to_lr
from donod_fast.selection.ranking import pareto_fronts as sweep


def table(don: list[float], nod: list[float], loss: list[float] | None = None) -> ScoreColumns:
    row = torch.arange(len(don))
    return ScoreColumns(row, *(torch.tensor(x, dtype=torch.float64) for x in (don, nod, loss or don)))


def random_table(count: int, seed: int = 0) -> ScoreColumns:
    generator = torch.Generator().manual_seed(seed)
    columns = torch.rand(3, count, generator=generator, dtype=torch.float64)
    return ScoreColumns(torch.arange(count), columns[0] - 0.5, columns[1], columns[2])


def fronts_by_peeling(don: list[float], nod: list[float]) -> list[int]:
    """Non-dominated sorting by its definition, O(n²) a front."""

    def dominates(a: int, b: int) -> bool:
        no_worse = don[a] >= don[b] and nod[a] <= nod[b]
        return no_worse and (don[a] > don[b] or nod[a] < nod[b])

    left, fronts, front = set(range(len(don))), [0] * len(don), 0
    while left:
        front += 1
        best = {b for b in left if not any(dominates(a, b) for a in left)}
        for b in best:
            fronts[b] = front
        left -= best
    return fronts


def test_topsis_ranks_by_closeness() -> None:
    columns = random_table(100)
    closeness = topsis(columns.don, columns.nod, weights=(0.8, 0.2))
    ranking = rank(columns, "topsis", weights=(0.8, 0.2))
    assert ranking.order.tolist() == np.argsort(-closeness.numpy(), kind="stable").tolist()
    assert torch.equal(ranking.value, closeness[ranking.order])


def test_don_prefers_high_nod_prefers_low_and_loss_prefers_low() -> None:
    columns = table([1.0, 3.0, 2.0], [5.0, 4.0, 6.0], [0.3, 0.2, 0.1])
    assert rank(columns, "don").order.tolist() == [1, 2, 0]
    assert rank(columns, "nod").order.tolist() == [1, 0, 2]
    assert rank(columns, "loss").order.tolist() == [2, 1, 0]
    assert rank(columns, "don").value.tolist() == [3.0, 2.0, 1.0]
    assert rank(columns, "nod").value.tolist() == [-4.0, -5.0, -6.0]
    assert rank(columns, "loss").value.tolist() == [-0.1, -0.2, -0.3]


def test_weighted_is_the_sum_of_min_max_normalised_columns() -> None:
    columns = random_table(50)
    don, nod = columns.don.numpy(), columns.nod.numpy()
    expected = 0.75 * (don - don.min()) / np.ptp(don) + 0.25 * (1 - (nod - nod.min()) / np.ptp(nod))
    ranking = rank(columns, "weighted", weights=(3, 1))
    np.testing.assert_allclose(ranking.value, np.sort(expected)[::-1], atol=1e-15)
    assert ranking.order.tolist() == np.argsort(-expected, kind="stable").tolist()


def test_weighted_survives_constant_columns() -> None:
    ranking = rank(table([1.0, 1.0, 1.0], [3.0, 1.0, 2.0]), "weighted")
    assert ranking.order.tolist() == [1, 2, 0]
    assert ranking.value.tolist() == [0.5, 0.25, 0.0]


small = st.integers(0, 6).map(float)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(small, small), min_size=1, max_size=40))
def test_pareto_fronts_are_those_found_by_peeling(pairs: list[tuple[float, float]]) -> None:
    don, nod = (list(column) for column in zip(*pairs, strict=True))
    assert sweep(torch.tensor(don), torch.tensor(nod)).tolist() == fronts_by_peeling(don, nod)


def test_pareto_orders_fronts_and_within_a_front_by_closeness() -> None:
    columns = random_table(200)
    fronts = fronts_by_peeling(columns.don.tolist(), columns.nod.tolist())
    closeness = topsis(columns.don, columns.nod).tolist()
    ranking = rank(columns, "pareto")
    assert ranking.order.tolist() == sorted(range(200), key=lambda row: (fronts[row], -closeness[row], row))
    assert ranking.value.tolist() == [-fronts[row] for row in ranking.order.tolist()]


@pytest.mark.parametrize("shape", ["cloud", "one front", "all dominated in a chain"])
def test_pareto_ranks_a_hundred_thousand_rows_in_seconds(shape: str) -> None:
    columns = random_table(100_000)
    nod = {"cloud": columns.nod, "one front": columns.don}.get(shape, -columns.don)
    began = time.perf_counter()
    ranking = rank(ScoreColumns(columns.row, columns.don, nod, columns.loss), "pareto")
    assert time.perf_counter() - began < 10  # a quadratic sweep takes hours
    assert ranking.order.sort().values.equal(columns.row)


def test_nodon_keeps_exactly_what_topsis_drops() -> None:
    tied = table([1.0, 2.0, 1.0, 2.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    for columns in (random_table(10), tied):
        count = len(columns.row)
        for kept in range(1, count):
            selected = keep(rank(columns, "topsis"), keep=kept).tolist()
            dropped = keep(rank(columns, "nodon"), keep=count - kept).tolist()
            assert sorted(selected + dropped) == list(range(count))


def test_random_depends_on_the_seed_alone() -> None:
    columns = random_table(500)
    first, again, other = (rank(columns, "random", seed=seed).order for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first.sort().values, columns.row)
    # the very draw, so that a change of generator shows
    assert rank(random_table(6), "random", seed=0).order.tolist() == [0, 3, 5, 1, 4, 2]


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, True, None])
def test_a_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed"):
        rank(random_table(3), "random", seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", OWN_METHODS)
def test_every_method_is_independent_of_the_order_of_the_table(method: str) -> None:
    don, nod = [1.0, 2.0, 1.0, -0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 0.0, -0.0, 1.0]
    columns = table(don, nod)
    shuffled = torch.tensor([5, 2, 0, 4, 1, 3])
    other = ScoreColumns(*(column[shuffled] for column in (columns.row, columns.don, columns.nod, columns.loss)))
    ranking, again = rank(columns, method), rank(other, method)
    assert torch.equal(ranking.order, again.order)
    assert torch.equal(ranking.value, again.value)
    assert (ranking.value.diff() <= 0).all()


@pytest.mark.parametrize("method", sorted(set(OWN_METHODS) - {"nodon", "random"}))
def test_ties_go_by_row_number(method: str) -> None:
    assert rank(table([1.0] * 50, [2.0] * 50), method).order.tolist() == list(range(50))


@pytest.mark.parametrize("method", OWN_METHODS)
def test_unscored_rows_are_not_ranked(method: str) -> None:
    gap = math.nan
    ranking = rank(table([gap, 1.0, 2.0, gap, 3.0], [1.0, gap, 2.0, gap, 3.0], [1.0, 1.0, 1.0, gap, 2.0]), method)
    assert sorted(ranking.order.tolist()) == [2, 4]
    assert ranking.total == 5 and not ranking.value.isnan().any()


@pytest.mark.parametrize("method", OWN_METHODS)
def test_a_table_without_scores_ranks_nothing_and_cannot_be_cut(method: str) -> None:
    ranking = rank(table([math.nan] * 2, [math.nan] * 2), method)
    assert len(ranking.order) == len(ranking.value) == 0
    with pytest.raises(InputError, match="none of the 2 rows"):
        keep(ranking, keep=0.5)


def test_unknown_methods_bad_weights_and_infinite_scores_are_refused() -> None:
    with pytest.raises(InputError, match="unknown method 'best'; known are topsis"):
        rank(random_table(3), "best")
    with pytest.raises(InputError, match="weights"):
        rank(random_table(3), "weighted", weights=(0, 0))
    with pytest.raises(InputError, match="column nod has an infinite score, at row 1"):
        rank(table([1.0, 2.0], [1.0, math.inf]))


def test_columns_of_other_types_or_lengths_are_refused() -> None:
    row, score = torch.arange(2), torch.zeros(2, dtype=torch.float64)
    with pytest.raises(InputError, match="column don"):
        ScoreColumns(row, score.float(), score, score)
    with pytest.raises(InputError, match="column nod"):
        ScoreColumns(row, score, score[:1], score)
    with pytest.raises(InputError, match="column row"):
        ScoreColumns(row.int(), score, score, score)


@pytest.mark.parametrize(
    ("scored", "fraction", "kept"),
    [
        (7473, 0.3, 2242),
        (100, 0.145, 15),
        (10, 0.25, 3),
        (10, 0.24, 2),
        (3, 0.01, 1),
        (3, 1.0, 3),
        (1, 0.5, 1),
    ],
)
def test_a_fraction_is_rounded_half_up_and_keeps_at_least_one(scored: int, fraction: float, kept: int) -> None:
    ranking = rank(random_table(scored))
    assert torch.equal(keep(ranking, keep=fraction), ranking.order[:kept])


def test_a_fraction_is_of_the_scored_rows() -> None:
    assert len(keep(rank(table([1.0, 2.0, math.nan, math.nan], [1.0] * 4)), keep=0.5)) == 1


def test_a_count_above_the_scored_rows_keeps_all_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    ranking = rank(random_table(5))
    with caplog.at_level(logging.WARNING):
        assert len(keep(ranking, keep=5)) == 5
        assert not caplog.records
        assert len(keep(ranking, keep=6)) == 5
    assert "6 rows, but only 5" in caplog.text


@pytest.mark.parametrize("bad", [0, -1, 0.0, -0.5, 1.5, math.nan, math.inf, True, "0.3", None])
def test_a_bad_amount_to_keep_is_refused(bad: object) -> None:
    with pytest.raises(InputError, match="keep"):
        keep(rank(random_table(3)), keep=bad)  # type: ignore[arg-type]


def test_a_threshold_keeps_what_is_at_or_above_it_best_first() -> None:
    ranking = rank(table([1.0, -2.0, 3.0, 2.0], [1.0] * 4), "don-threshold")
    assert keep(ranking, don_threshold=1.0).tolist() == [2, 3, 0]
    assert keep(ranking, don_threshold=9.0).tolist() == []


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30), st.integers(0, 20))
def test_a_quantile_keeps_what_numpy_says_is_at_or_above_it(don: list[float], twentieths: int) -> None:
    quantile = twentieths / 20
    kept = keep(rank(table(don, [1.0] * len(don)), "don-threshold"), don_quantile=quantile)
    bound = np.quantile(don, quantile) - 1e-9  # numpy's interpolation may round up past an equal value
    assert sorted(kept.tolist()) == [row for row, value in enumerate(don) if value >= bound]


def test_each_method_takes_its_own_cut_only() -> None:
    threshold, closeness = rank(random_table(3), "don-threshold"), rank(random_table(3))
    for bad in ({"keep": 0.5}, {}, {"don_threshold": 0.1, "don_quantile": 0.5}):
        with pytest.raises(InputError, match="don-threshold takes don_threshold or"):
            keep(threshold, **bad)
    for bad in ({}, {"don_threshold": 0.1}, {"keep": 0.5, "don_quantile": 0.5}):
        with pytest.raises(InputError, match="method topsis takes keep"):
            keep(closeness, **bad)
    for bad in ({"don_threshold": math.nan}, {"don_quantile": 1.5}, {"don_quantile": math.nan}):
        with pytest.raises(InputError, match="must be"):
            keep(threshold, **bad)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.3", 0.3),
        ("300", 300),
        ("30%", 0.3),
        ("1", 1),
        ("1.0", 1.0),
        (" .5 ", 0.5),
        ("12.5 %", 0.125),
        ("0300", 300),
    ],
)
def test_amounts_are_read_as_fraction_or_count(text: str, amount: float | int) -> None:
    found = parse_keep(text)
    assert found == amount and type(found) is type(amount)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0.0",
        "0%",
        "101%",
        "1.5",
        "-1",
        "-0.3",
        "nan",
        "inf",
        "all",
        "1_000",
        "1,000",
        "30%%",
        "٣",
        "%",
    ],
)
def test_other_amounts_are_refused_with_the_forms_that_are_not(text: str) -> None:
    with pytest.raises(InputError, match="for a count"):
        parse_keep(text)


def stepped(weight: Tensor, update: Tensor, lr: float) -> tuple[float, float]:
    """DON and NOD by their definition, on exact enough numbers."""
    after = weight - lr * update
    return float(weight.norm() - after.norm()), float((weight - after).norm())


@pytest.mark.parametrize("lr", [0.0, 1e-3, 0.5, 30.0])
def test_another_learning_rate_gives_the_scores_of_a_step_with_it(lr: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 7, generator=generator, dtype=torch.float64)
    updates = torch.randn(5, 40, 7, generator=generator, dtype=torch.float64)
    dots, norms = (updates * weight).sum((1, 2)), updates.flatten(1).norm(dim=1)
    don, nod = rescale_to_lr(dots, norms, float(weight.norm()), lr)
    expected = torch.tensor([stepped(weight, update, lr) for update in updates], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([don, nod], 1), expected, rtol=1e-12, atol=1e-13)


def test_a_step_onto_zero_and_a_zero_weight_are_exact() -> None:
    whole = torch.tensor([9.0, 0.0, math.nan])
    don, nod = rescale_to_lr(whole, torch.tensor([3.0, 2.0, math.nan]), 3.0, 1.0)
    assert don[0] == 3.0 and nod[0] == 3.0  # W' = W - W
    assert don[2].isnan() and nod[2].isnan()
    don, nod = rescale_to_lr(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0]), 0.0, 0.5)
    assert don.tolist() == [-1.0, 0.0] and nod.tolist() == [1.0, 0.0]
    # rounding may leave <W,U> a little above ||W|| ||U||
    don, _ = rescale_to_lr(torch.tensor([9.0 * (1 + 1e-7)], dtype=torch.float64), torch.tensor([3.0]), 3.0, 1.0)
    assert don.isfinite().all()


def test_bad_rates_and_shapes_are_refused() -> None:
    one = torch.ones(1)
    for bad in ({"lr": -1.0, "weight_norm": 1.0}, {"lr": 1.0, "weight_norm": math.inf}):
        with pytest.raises(InputError, match="must be finite"):
            rescale_to_lr(one, one, **bad)
    with pytest.raises(InputError, match="the same shape"):
        rescale_to_lr(one, torch.ones(2), 1.0, 1.0)
