"""Rank agreement: Spearman's correlation, overlap of the selections, and failure of a poor substitute."""

from __future__ import annotations

import json
import math
import random
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

from donod_fast.errors import InputError
from donod_fast.kernels import topsis
from donod_fast.scores.rows import ScoreRow
from donod_fast.scoring.scorer import Scorer, as_corpus
from donod_fast.selection.agreement import Agreement, compare_runs, rank_agreement, spread_rows
from donod_fast.selection.rank_correlation import average_ranks, spearman

ROWS = short_rows(60, seed=9)


def row(number: int, don: float, nod: float, status: str = "scored") -> ScoreRow:
    return ScoreRow(number, str(number), status, loss=1.0, don=don, nod=nod)


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_ranks_of_equal_elements_are_averaged() -> None:
    assert average_ranks(column([30.0, 10.0, 20.0, 20.0, -5.0])).tolist() == [5.0, 2.0, 3.5, 3.5, 1.0]
    assert average_ranks(column([4.0, 4.0, 4.0])).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("ties", [False, True])
def test_the_correlation_is_spearmans(ties: bool) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    draw = random.Random(1)
    for count in (3, 10, 200):
        a = [draw.gauss(0, 1) for _ in range(count)]
        b = [x + draw.gauss(0, 0.5) for x in a]
        if ties:
            a, b = [round(x) + 0.0 for x in a], [round(x) + 0.0 for x in b]
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert spearman(column(a), column(b)) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_spearman_has_its_closed_form_without_ties_and_sees_only_ranks() -> None:
    a, b = column([1.0, 2.0, 3.0, 4.0, 5.0]), column([2.0, 1.0, 4.0, 3.0, 5.0])
    assert spearman(a, b) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert spearman(a, b.exp()) == pytest.approx(spearman(a, b))
    assert spearman(a, -a) == pytest.approx(-1.0)
    assert math.isnan(spearman(a, torch.ones(5, dtype=torch.float64)))


def test_rows_are_matched_by_number_and_only_those_scored_in_both_count() -> None:
    draw = random.Random(2)
    first = [row(i, draw.gauss(0, 1), draw.random() + 1) for i in range(50)]
    second = [row(r.row, r.don + draw.gauss(0, 0.3), r.nod + draw.gauss(0, 0.1)) for r in first]
    second[3] = row(3, math.nan, math.nan, "too_long")
    second[5] = row(5, 1e9, 1e9, "non_finite")
    draw.shuffle(second)
    found = rank_agreement(first, second)
    common = [i for i in range(50) if i not in (3, 5)]
    by_number = {r.row: r for r in second}
    pairs = [(first[i], by_number[i]) for i in common]
    assert found.rows == 48
    assert found.spearman_don == pytest.approx(
        spearman(column([a.don for a, _ in pairs]), column([b.don for _, b in pairs]))
    )
    assert found.spearman_nod == pytest.approx(
        spearman(column([a.nod for a, _ in pairs]), column([b.nod for _, b in pairs]))
    )

    def best(side: int) -> set[int]:
        closeness = topsis(column([p[side].don for p in pairs]), column([p[side].nod for p in pairs]))
        return set(closeness.argsort(descending=True)[:14].tolist())  # 0.3 of 48

    assert found.overlap == len(best(0) & best(1)) / 14
    assert found.overlap < 1 and rank_agreement(first, first) == Agreement(50, pytest.approx(1), pytest.approx(1), 1.0)


def test_hardly_any_row_in_common_is_an_input_error() -> None:
    rows = [row(i, i, i + 1) for i in range(4)]
    with pytest.raises(InputError, match="only 2 rows scored in both"):
        rank_agreement(rows, rows[:2])


@pytest.mark.parametrize(
    ("don", "nod", "passed"),
    [(0.99, 0.99, True), (0.989, 1.0, False), (1.0, 0.989, False), (math.nan, 1.0, False), (1.0, math.nan, False)],
)
def test_both_columns_have_to_reach_the_limit(don: float, nod: float, passed: bool) -> None:
    assert Agreement(100, don, nod, 1.0).passed(0.99) is passed


def test_the_first_model_is_gone_before_the_second_is_loaded() -> None:
    seen: list[Any] = []

    def load() -> Scorer:
        assert all(reference() is None for reference in seen)
        scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
        seen.append(weakref.ref(scorer.loaded.model))
        return scorer

    agreement, precision, second = compare_runs(load, load, list(as_corpus(ROWS).records()))
    assert precision == "float32" and seen[1]() is second.loaded.model
    assert (agreement.overlap, agreement.passed(1 - 1e-12)) == (1.0, True)


def test_sampled_rows_are_spread_over_the_corpus() -> None:
    corpus = as_corpus(ROWS)
    assert [record.row for record in spread_rows(corpus, 6)] == [0, 10, 20, 30, 40, 50]
    assert [record.row for record in spread_rows(corpus, 7)] == [0, 8, 17, 25, 34, 42, 51]
    assert [record.row for record in spread_rows(corpus, 60)] == list(range(60))
    assert len(spread_rows(corpus, 1000)) == 60


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


def check(model: Path, *options: object) -> Any:
    return invoke("check", "--model", model, "--device", "cpu", "--no-naive", *options)


def test_check_prints_how_another_dtype_ranks(model: Path, data: Path) -> None:
    records = list(as_corpus(ROWS).records())[::2]
    first, second = (
        Scorer.from_pretrained(model, device="cpu", dtype=dtype).score_records(records)
        for dtype in ("float32", "bfloat16")
    )
    expected = rank_agreement(first, second)
    assert expected.spearman_don < 1
    options = ["--data", data, "--dtype", "bfloat16", "--against", "float32", "--agreement-rows", 30]
    done = check(model, *options, "--min-spearman", expected.spearman_nod)
    assert done.code == 0, done
    assert f"ranks of {expected.rows} rows, bfloat16 against float32:" in done.out
    assert f"Spearman DON {expected.spearman_don:.4f}, NOD {expected.spearman_nod:.4f}" in done.out
    assert f"top-30 % overlap {expected.overlap:.3f}" in done.out
    report = json.loads(check(model, *options, "--min-spearman", expected.spearman_nod, "--json").out)
    assert report["precision"] == "bfloat16" and report["passed"] is True
    assert report["agreement"] == {
        "reference": "float32",
        "checked": "bfloat16",
        **asdict(expected),
        "limit": expected.spearman_nod,
        "passed": True,
    }


def test_check_fails_where_the_ranks_are_others(model: Path, data: Path, tmp_path: Path) -> None:
    other = save_tiny("llama", tmp_path, seed=1)
    done = check(model, "--data", data, "--against", other)
    assert_one_line_error(done, 1, "float32 does not preserve the ranking of float32")
    assert "FAILED" in done.out
    report = json.loads(check(model, "--data", data, "--against", other, "--json").out)
    assert report["passed"] is False and all(line["passed"] for line in report["lines"])


def test_check_of_ranks_needs_rows(model: Path) -> None:
    assert_one_line_error(check(model, "--against", "bfloat16"), 2, "give --data")


def test_check_in_an_unavailable_precision_is_an_input_error(model: Path, data: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = check(model, "--data", data, "--precision", "float8")
    assert_one_line_error(done, 2, "needs a CUDA device")
