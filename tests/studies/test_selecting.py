"""Selections, compared with plain sorting of the columns."""

from __future__ import annotations

import math
import random

import pytest
import torch

from donod_fast.errors import InputError
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.grid import make_grid
from donod_fast.studies.core.selecting import STUDY_METHODS, Selection, merits, rows_digest, selected_rows


def columns(count: int = 40, unscored: tuple[int, ...] = (3, 17)) -> ScoreColumns:
    draw = random.Random(0)
    don, nod, loss = ([draw.gauss(0, 1) for _ in range(count)] for _ in range(3))
    nod = [abs(value) for value in nod]
    for row in unscored:
        don[row] = nod[row] = loss[row] = math.nan
    as_tensor = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    return ScoreColumns(torch.arange(count), as_tensor(don), as_tensor(nod), as_tensor(loss))


def best(values: list[float], count: int) -> tuple[int, ...]:
    there = [row for row in range(len(values)) if not math.isnan(values[row])]
    return tuple(sorted(sorted(there, key=lambda row: -values[row])[:count]))


def test_all_keeps_every_scored_row() -> None:
    assert selected_rows(columns(), Selection("all")) == tuple(row for row in range(40) if row not in (3, 17))


def test_don_nod_and_loss_keep_the_best_of_their_column() -> None:
    table = columns()
    for method, values in (("don", table.don), ("nod", -table.nod), ("loss", -table.loss)):
        assert selected_rows(table, Selection(method, keep=0.25)) == best(values.tolist(), 10), method


def test_nodon_keeps_what_topsis_leaves_out() -> None:
    table = columns()
    kept = selected_rows(table, Selection("topsis", keep=0.5))
    assert set(kept) | set(selected_rows(table, Selection("nodon", keep=0.5))) == set(
        selected_rows(table, Selection("all"))
    )
    assert not set(kept) & set(selected_rows(table, Selection("nodon", keep=0.5)))


def test_a_quantile_of_don_keeps_the_rows_at_or_above_it() -> None:
    table = columns()
    bound = float(torch.quantile(table.don[~table.don.isnan()], 0.75))
    expected = tuple(row for row, don in enumerate(table.don.tolist()) if don >= bound)
    assert selected_rows(table, Selection("don-threshold", don_quantile=0.75)) == expected
    assert selected_rows(table, Selection("don-threshold", don_threshold=bound)) == expected


def test_a_fraction_of_one_is_everything_and_no_count() -> None:
    assert len(selected_rows(columns(), Selection("don", keep=1))) == 38


def test_random_depends_on_the_seed_and_the_others_do_not() -> None:
    table = columns()
    draws = {selected_rows(table, Selection("random", keep=0.5), seed=seed) for seed in range(5)}
    assert len(draws) == 5
    assert all(len(rows) == 19 for rows in draws)
    assert len({selected_rows(table, Selection("topsis", keep=0.5), seed=seed) for seed in range(5)}) == 1


@pytest.mark.parametrize(
    ("method", "amount", "message"),
    [
        ("best", {"keep": 0.3}, "unknown method 'best'"),
        ("don", {}, "takes keep, got nothing"),
        ("all", {"keep": 0.3}, "takes nothing, got keep"),
        ("don", {"don_quantile": 0.3}, "takes keep, got don_quantile"),
        ("don-threshold", {"keep": 0.3}, "takes don_quantile or don_threshold, got keep"),
        ("don", {"keep": 1.3}, "a share from 0 to 1"),
        ("don-threshold", {"don_threshold": math.inf}, "finite"),
    ],
)
def test_a_selection_that_cannot_be_is_refused_by_name(method: str, amount: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Selection(method, **amount)


def test_a_threshold_that_keeps_nothing_says_what_the_largest_is() -> None:
    with pytest.raises(InputError, match=r"no row has DON ≥ 1e\+09; the largest DON is"):
        selected_rows(columns(), Selection("don-threshold", don_threshold=1e9))


def test_merits_are_in_row_order_and_nan_without_a_score() -> None:
    table = columns()
    assert torch.equal(merits(table, "don").nan_to_num(9), table.don.nan_to_num(9))
    assert torch.equal(merits(table, "loss").nan_to_num(9), (-table.loss).nan_to_num(9))
    # Rows in another order have their merits in that order.
    turned = ScoreColumns(*(column.flip(0) for column in (table.row, table.don, table.nod, table.loss)))
    assert torch.equal(merits(turned, "topsis").flip(0).nan_to_num(9), merits(table, "topsis").nan_to_num(9))


def test_equal_sets_of_rows_have_one_digest_whatever_their_order() -> None:
    assert rows_digest([3, 1, 2]) == rows_digest((1, 2, 3)) != rows_digest([12, 3])


def test_a_grid_trains_equal_rows_once_a_seed() -> None:
    table = columns(unscored=())
    chosen = [
        Selection("all"),
        Selection("topsis", keep=1.0),
        Selection("don", keep=0.25),
        Selection("don-threshold", don_quantile=0.75),
        Selection("random", keep=0.25),
    ]
    grid = make_grid(table, chosen, (0, 1))
    assert grid.of[chosen[0], 0] == grid.of[chosen[1], 0]
    assert grid.of[chosen[2], 1] == grid.of[chosen[3], 1]
    assert len(grid.units) == 2 * 3
    assert [unit.seed for unit in grid.units] == [0, 0, 0, 1, 1, 1], "all of the first seed come first"
    assert grid.of[chosen[4], 0].rows != grid.of[chosen[4], 1].rows


def test_every_method_of_a_study_can_be_selected_by() -> None:
    for method in STUDY_METHODS:
        amount = {"all": {}, "don-threshold": {"don_quantile": 0.5}}.get(method, {"keep": 0.5})
        assert selected_rows(columns(), Selection(method, **amount))
