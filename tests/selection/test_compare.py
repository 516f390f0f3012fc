"""Comparison of criteria: correlations and overlaps against SciPy and plain sets, and their display."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from score_runs import invoke, short_rows, write_lines
from tiny_models import save_tiny
from typer.testing import CliRunner

from donod_fast.cli.compare import compare as compare_command
from donod_fast.errors import InputError, StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.comparison import Comparison, compare_columns, compare_folder
from donod_fast.selection.comparison.tables import render
from donod_fast.selection.keeping import keep
from donod_fast.selection.ranking import ScoreColumns, rank

NAMES = ["topsis", "pareto", "don", "nod", "loss@high", "el2n", "ifd", "perplexity"]


def table(count: int = 120, seed: int = 0) -> ScoreColumns:
    """Columns with ties and NaN, in an order of rows that is not theirs; ``tokens`` has no better end."""
    draw = np.random.default_rng(seed)
    base = draw.normal(size=count)

    def column(noise: float, missing: float = 0.0) -> Any:
        values = np.round(base + noise * draw.normal(size=count), 1)
        values[draw.random(count) < missing] = np.nan
        return values

    don, nod, loss = column(1), np.abs(column(2)), np.abs(column(0.3))
    unscored = draw.random(count) < 0.1
    for one in (don, nod, loss):
        one[unscored] = np.nan
    more = {
        "el2n": column(0.5, 0.2),
        "ifd_ppl": np.abs(column(0.2, 0.1)),
        "perplexity": column(3),
        "tokens": column(1),
        "flat": np.full(count, 2.0),
    }
    as_tensors = {name: torch.from_numpy(values) for name, values in more.items()}
    rows = torch.from_numpy(draw.permutation(count))
    return ScoreColumns(rows, *(torch.from_numpy(one) for one in (don, nod, loss)), as_tensors)


def values_of(columns: ScoreColumns, name: str) -> Any:
    """Each row's value, high preferred, NaN where the method does not rank it; by position."""
    ranking = rank(columns, name)
    by_row = dict(zip(ranking.order.tolist(), ranking.value.tolist(), strict=True))
    return np.array([by_row.get(row, math.nan) for row in columns.row.tolist()])


@pytest.mark.parametrize("measure", ["spearman", "kendall"])
def test_correlations_equal_those_of_scipy_over_rows_that_both_rank(measure: str) -> None:
    from scipy.stats import kendalltau, spearmanr

    columns = table()
    found = compare_columns(columns, [*NAMES, "tokens"], measure=measure)
    there = ~(columns.don.isnan() | columns.nod.isnan())
    tokens = columns.more["tokens"].where(there, math.nan).numpy()
    values = {**{name: values_of(columns, name) for name in NAMES}, "tokens": tokens}
    reference = spearmanr if measure == "spearman" else kendalltau
    for a, one in enumerate(found.names):
        for b, other in enumerate(found.names):
            both = ~(np.isnan(values[one]) | np.isnan(values[other]))
            expected = reference(values[one][both], values[other][both]).statistic
            assert found.correlation[a, b] == pytest.approx(expected, abs=1e-12), (one, other)
    assert found.ends == ("high", "high", "high", "low", "high", "high", "high", "low", "as is")
    assert found.values == tuple(int((~np.isnan(values[name])).sum()) for name in found.names)


def test_columns_that_lack_different_rows_are_ranked_on_the_rows_of_both() -> None:
    one = torch.ones(5, dtype=torch.float64)
    first = torch.tensor([1.0, 2.0, 3.0, 4.0, math.nan], dtype=torch.float64)
    second = torch.tensor([math.nan, 5.0, 6.0, 9.0, 1.0], dtype=torch.float64)  # as many values, of other rows
    columns = ScoreColumns(torch.arange(5), one, one, one, {"el2n": first, "grand": second})
    assert compare_columns(columns, ["el2n", "grand"]).correlation[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("share", [0.3, 7])
def test_overlaps_are_those_of_the_sets_that_select_would_keep(share: float | int) -> None:
    columns = table()
    found = compare_columns(columns, [*NAMES, "tokens"], share=share)
    kept = {name: set(keep(rank(columns, name), keep=share).tolist()) for name in NAMES}
    for a, one in enumerate(NAMES):
        assert found.kept[a] == len(kept[one])
        for b, other in enumerate(NAMES):
            expected = len(kept[one] & kept[other]) / min(len(kept[one]), len(kept[other]))
            assert found.overlap[a, b] == expected
    assert found.kept[-1] == 0 and np.isnan(found.overlap[-1]).all(), "by tokens nothing is selected"
    by_tokens = compare_columns(columns, ["tokens@low", "don"], share=share)
    assert by_tokens.ends[0] == "low" and by_tokens.kept[0] > 0


def test_a_constant_or_empty_column_is_shown_as_not_available() -> None:
    columns = table()
    columns.more["ifd_ppl"].fill_(math.nan)  # type: ignore[attr-defined]
    found = compare_columns(columns, ["don", "el2n", "flat@high", "ifd", "ifd_ppl@low"])
    for at in (2, 3, 4):
        assert np.isnan(found.correlation[at]).all() and np.isnan(found.overlap[at]).all()
    assert found.kept[2:] == (0, 0, 0)
    assert not np.isnan(found.correlation[:2, :2]).any()
    plain = found.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["spearman"][0][2] is None and plain["overlap"][1][0] == found.overlap[1, 0]
    text = render(found, 80)
    assert "n/a" in text and "nan" not in text.lower()


def test_both_tables_fit_the_terminal_and_hold_every_pair_once() -> None:
    found = compare_columns(table(), [*NAMES, "tokens"])
    for width in (40, 60, 100):
        lines = render(found, width).split("\n\n")
        blocks = [block for block in lines if block.splitlines()[0].strip()[:1].isdigit()]
        assert all(len(line) <= width for block in blocks for line in block.splitlines())
        cells = sum(len(line.split()) for block in blocks for line in block.splitlines())
        assert cells > 8 * 9 / 2 + 7 * 8 / 2
    assert len(blocks) == 2
    at = found.names.index("el2n")
    row = next(line for line in blocks[0].splitlines() if " el2n" in line).split()
    shown = [f"{value:.2f}".replace("0.", ".", 1) for value in found.correlation[at, :at]]
    assert row[2:] == [value[:-1] if value.lstrip("-") == "1.00" else value for value in shown]


def scored_table(count: int = 200) -> ScoreColumns:
    """Scores of rows with lengths; a tenth of the rows has no scores, and long rows have a high loss."""
    draw = np.random.default_rng(3)
    tokens = draw.integers(10, 300, count).astype(float)
    don, nod = draw.normal(size=count), np.abs(draw.normal(size=count))
    loss = tokens / 100 + 0.1 * draw.normal(size=count)
    unscored = draw.random(count) < 0.1
    for one in (don, nod, loss):
        one[unscored] = np.nan
    columns = [torch.from_numpy(one) for one in (don, nod, loss)]
    return ScoreColumns(torch.arange(count), *columns, {"tokens": torch.from_numpy(tokens)})


def test_selections_stand_beside_random_draws_that_match_them() -> None:
    columns = scored_table()
    found = compare_columns(columns, ["tokens@high", "don", "loss@high"])
    by_name = {one.name: one for one in found.yardsticks}
    tokens = columns.more["tokens"]
    for name, one in by_name.items():
        kept = keep(rank(columns, name), keep=0.3)
        assert one.rows == len(kept) and one.tokens == pytest.approx(float(tokens[kept].mean()))
        assert one.loss == pytest.approx(float(columns.loss[kept].mean()))
        assert one.draws["rows"].rows.mean == one.rows == one.draws["lengths"].rows.mean
        total = one.draws["tokens"].rows.mean * one.draws["tokens"].tokens.mean
        assert total == pytest.approx(one.tokens * one.rows, rel=0.05)
        assert one.draws["lengths"].tokens.mean == pytest.approx(one.tokens, rel=0.05)
        for drawn in one.draws.values():
            assert drawn.overlap.low <= drawn.overlap.mean <= drawn.overlap.high
    # DON knows nothing of the length, so it is within what random draws have; the longest rows are far outside.
    random = by_name["don"].draws["rows"].tokens
    assert random.low <= by_name["don"].tokens <= random.high < by_name["tokens@high"].tokens
    assert by_name["tokens@high"].draws["lengths"].overlap.mean > 0.7 > 0.5 > by_name["don"].draws["rows"].overlap.mean
    text = render(found, 80)
    assert "selections beside 5 random draws" in text and "as many tokens" in text
    assert "nan" not in text.lower() and all(name in text for name in by_name)
    plain = found.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain and len(plain["yardsticks"]) == 3


def test_without_lengths_only_draws_of_as_many_rows_are_made() -> None:
    whole = scored_table()
    for tokens in (None, math.nan, 0.0):
        more = dict(whole.more)
        if tokens is None:
            del more["tokens"]
        else:
            more["tokens"] = more["tokens"].clone()
            more["tokens"][rank(whole, "don").order[0]] = tokens
        columns = ScoreColumns(whole.row, whole.don, whole.nod, whole.loss, more)
        found = compare_columns(columns, ["don", "loss"])
        assert all(list(one.draws) == ["rows"] for one in found.yardsticks)
        assert "as many tokens" not in render(found, 80)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compared")
    data = write_lines(place / "a.jsonl", short_rows(60, seed=5))
    options = ["--model", save_tiny("llama", place / "model"), "--device", "cpu", "--part-rows", "16"]
    done = invoke("score", data, *options, "--signals", "perplexity,el2n,ifd,embedding", "--out", place / "out")
    assert done.code == 0, done.err
    return place / "out"


def test_a_folder_is_compared_by_all_its_number_columns(scores: Path) -> None:
    folder = ScoresFolder.open(scores)
    found = compare_folder(folder)
    whole = ScoreColumns.from_table(folder.table())
    numbers = {name for name in whole.names if name not in ("don", "nod", "loss")}
    assert set(found.names) == {"topsis", "weighted", "pareto", "don", "nod", "loss"} | numbers
    assert "embedding" not in found.names and "el2n" in numbers
    again = compare_columns(whole, list(found.names))
    np.testing.assert_array_equal(found.correlation, again.correlation)
    np.testing.assert_array_equal(found.overlap, again.overlap)
    at = {name: place for place, name in enumerate(found.names)}
    assert found.correlation[at["perplexity"], at["loss"]] == pytest.approx(1)


def test_clusters_are_compared_by_what_they_choose(scores: Path) -> None:
    from donod_fast.selection.kmeans_ifd import choose, read_questions

    pytest.importorskip("sklearn", reason="the extra `criteria` is not installed")
    folder = ScoresFolder.open(scores)
    found = compare_folder(folder, ["don", "kmeans-ifd"], share=0.5)
    questions = read_questions(folder)
    chosen = set(choose(questions.rows, questions.embeddings, questions.ifd, keep=0.5).rows.tolist())
    by_don = set(keep(rank(ScoreColumns.from_table(folder.table()), "don"), keep=0.5).tolist())
    assert found.kept == (len(by_don), len(chosen))
    assert found.overlap[0, 1] == len(chosen & by_don) / min(len(chosen), len(by_don))
    with pytest.raises(InputError, match="remove --sample"):
        compare_folder(folder, ["don", "kmeans-ifd"], sample=10)


def test_samples_follow_the_seed_and_too_much_memory_is_refused_first(scores: Path) -> None:
    folder = ScoresFolder.open(scores)

    def compared(**options: Any) -> Comparison:
        return compare_folder(folder, ["don", "nod"], **options)

    one, same, other = compared(sample=30), compared(sample=30), compared(sample=30, seed=1)
    assert (one.rows, one.total) == (30, 60) and "a sample of 30 of 60 rows" in render(one)
    assert one.correlation.tobytes() == same.correlation.tobytes() != other.correlation.tobytes()
    assert compared(sample=1000).rows == 60
    with pytest.raises(InputError, match=r"60 rows by 2 criteria take about .* with --sample \d+, fewer criteria"):
        compared(memory=20_000)
    assert compared(memory=20_000, sample=30).rows == 30


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"names": ["don"]}, "needs two criteria"),
        ({"names": ["don", "don"]}, "don is named twice"),
        ({"names": ["don", "grand"]}, "--signals grand --out DIR"),
        ({"names": ["don", "best"]}, "unknown method 'best'"),
        ({"measure": "pearson"}, "one of spearman, kendall"),
        ({"sample": 1}, "--sample must be at least 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(scores: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compare_folder(ScoresFolder.open(scores), **options)


def test_the_command_prints_draws_and_gives_json(scores: Path, tmp_path: Path) -> None:
    matplotlib_image = pytest.importorskip("matplotlib.image", reason="the extra `plot` is not installed")
    app = typer.Typer()
    app.command()(compare_command)
    picture = tmp_path / "c.png"
    done = CliRunner().invoke(app, [str(scores), "--out", str(picture)])
    assert done.exit_code == 0, done.output
    assert "Spearman's rank correlation, 60 rows" in done.output and "(by chance .30)" in done.output
    pixels = matplotlib_image.imread(picture)[::6, ::6]
    assert min(pixels.shape[:2]) > 80 and len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
    again = CliRunner().invoke(app, [str(scores), "--out", str(picture)])
    assert isinstance(again.exception, StoreError) and "exists already" in str(again.exception)
    told = json.loads(
        CliRunner().invoke(app, [str(scores), "--json", "--keep", "20%", "--columns", "don, el2n"]).output
    )
    assert [one["name"] for one in told["criteria"]] == ["don", "el2n"] and told["keep"] == 0.2
