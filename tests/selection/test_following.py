"""Where TOPSIS follows one column, a ranking says so; both engines compare the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ranked_folders import columns_of, drawn, folder_of
from scipy.stats import spearmanr

from donod_fast.selection import following as module
from donod_fast.selection.following import MOST_ROWS, Following, Sampled, following_of
from donod_fast.selection.out_of_core import loading, rank_parts
from donod_fast.selection.ranking import ScoreColumns, rank


def columns(don: list[float], nod: list[float]) -> ScoreColumns:
    row = torch.arange(len(don))
    loss = torch.zeros(len(don), dtype=torch.float64)
    return ScoreColumns(row, torch.tensor(don, dtype=torch.float64), torch.tensor(nod, dtype=torch.float64), loss)


@pytest.mark.parametrize("most", [1 << 16, 97, 1])
@pytest.mark.parametrize("method", ["topsis", "nodon"])
@pytest.mark.parametrize("normalise", ["vector", "range"])
def test_both_engines_compare_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, method: str, normalise: str
) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", most)
    monkeypatch.setattr(loading, "_BATCH_ROWS", 300)
    folder = folder_of(tmp_path / "scores", drawn(1500), [7, 1000, 1, 400, 92])
    table = columns_of(folder)
    ranking = rank(table, method, normalise=normalise)
    found = following_of(ranking, table)
    assert found is not None and found.ranked == len(ranking.order)
    with rank_parts(folder, method, normalise=normalise) as big:
        assert big.following is not None
        assert (big.following.rows, big.following.ranked) == (found.rows, found.ranked)
        np.testing.assert_allclose([big.following.don, big.following.nod], [found.don, found.nod], rtol=1e-9)
    if most > 1500:
        scored = ~table.don.isnan()
        value = rank(table, "topsis", normalise=normalise)
        by_row = torch.zeros(len(table.row), dtype=torch.float64)
        by_row[value.order] = value.value
        wanted = [spearmanr(by_row[scored], column).statistic for column in (table.don[scored], -table.nod[scored])]
        np.testing.assert_allclose([found.don, found.nod], wanted, rtol=1e-9)


def test_it_is_said_which_column_is_followed() -> None:
    rising = [float(k) for k in range(50)]
    mixed = [float((k * 37) % 50) for k in range(50)]
    flat = [100.0 + 1e-3 * value for value in mixed]
    by_don = columns(rising, flat)
    said = following_of(rank(by_don, normalise="vector"), by_don)
    assert said is not None and "follows DON alone" in str(said.text()) and "over 50 rows" in str(said.text())
    by_nod = columns([1.0 + 1e-9 * value for value in mixed], rising)
    said = following_of(rank(by_nod, normalise="vector"), by_nod)
    assert said is not None and "follows NOD alone" in str(said.text())
    both = columns(rising, rising[::-1])
    said = following_of(rank(both), both)
    assert said is not None and "nearly the same order" in str(said.text())
    neither = columns(rising, mixed)
    said = following_of(rank(neither, normalise="range"), neither)
    assert said is not None and said.text() is None


def test_other_methods_and_few_rows_say_nothing() -> None:
    some = columns([1.0, 2.0, 3.0], [3.0, 1.0, 2.0])
    assert following_of(rank(some, "don"), some) is None and following_of(rank(some, "pareto"), some) is None
    few = columns([1.0, 2.0], [3.0, 1.0])
    assert following_of(rank(few), few) is None
    constant = columns([1.0] * 4, [2.0] * 4)
    found = following_of(rank(constant), constant)
    assert found is not None and found.text() is None and found.as_json()["don"] is None


def test_a_sample_is_called_one() -> None:
    assert "every 4th row compared" in str(Following(1.0, 0.2, 25, 100).text())


def test_a_sample_of_many_rows_keeps_only_its_rows_in_memory() -> None:
    total, batch = 1 << 20, 1 << 16
    sampled = Sampled(total)
    for _ in range(total // batch):
        sampled.add(*torch.rand(3, batch, dtype=torch.float64))
    held = sum(part.untyped_storage().nbytes() for part in sampled._parts)
    assert held <= 3 * 8 * (MOST_ROWS + total // batch)
