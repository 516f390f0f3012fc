"""Any number column ranks, in memory and out of core, with the same ties and errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranked_folders import columns_of, drawn, folder_of
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.column_methods import OWN_METHODS, check_known, find_method, signals_of
from donod_fast.selection.keeping import keep
from donod_fast.selection.out_of_core import rank_parts
from donod_fast.selection.ranking import ScoreColumns, rank

PARTS = [7, 300, 1, 92]
ROWS = sum(PARTS)
# Each method with its column, the end that comes first, and the bound at which rows are left out.
EXPECTED = {
    "el2n": ("el2n", "high", math.inf),
    "perplexity": ("perplexity", "low", math.inf),
    "ifd_ppl": ("ifd_ppl", "high", math.inf),
    "ifd": ("ifd_ppl", "high", 1.0),
    "ifd-loss": ("ifd_loss", "high", 1.0),
    "ifd@low": ("ifd_ppl", "low", 1.0),
    "el2n@low": ("el2n", "low", math.inf),
    "loss@high": ("loss", "high", math.inf),
    "nod@high": ("nod", "high", math.inf),
    "don@low": ("don", "low", math.inf),
    "tokens@high": ("tokens", "high", math.inf),
    "update_norm@low": ("update_norm", "low", math.inf),
}


def signals() -> dict[str, dict[str, Any]]:
    """Columns full of ties, with NaN in rows that have scores, values in rows that have none, and negative zeros."""
    draw = np.random.default_rng(7)

    def column(low: float, high: float) -> Any:
        values = draw.integers(int(low * 8), int(high * 8), ROWS) / 8
        values[draw.random(ROWS) < 0.1] = -0.0
        values[draw.random(ROWS) < 0.1] = np.nan
        return values

    return {
        "el2n": {"el2n": column(-1, 2)},
        "perplexity": {"perplexity": column(1, 3)},
        "ifd": {"ifd_loss": column(0, 2), "ifd_ppl": column(0, 2), "ifd_unhelped": draw.random(ROWS) < 0.5},
        "embedding": {"embedding": draw.normal(size=(ROWS, 3)).astype(np.float32)},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    return folder_of(tmp_path_factory.mktemp("columns") / "scores", drawn(ROWS, 1), PARTS, signals=signals())


def by_hand(folder: ScoresFolder, method: str) -> tuple[list[int], int]:
    """The ranked rows, best first, and how many were left out, from the table row by row."""
    column, end, bound = EXPECTED[method]
    rows = [
        row for row in folder.table().to_pylist() if not any(math.isnan(row[name]) for name in ("don", "nod", column))
    ]
    there = [row for row in rows if not row[column] >= bound]
    sign = -1 if end == "high" else 1
    there.sort(key=lambda row: (sign * row[column], row["row"]))
    return [row["row"] for row in there], len(rows) - len(there)


@pytest.mark.parametrize("method", EXPECTED)
def test_a_column_ranks_as_by_hand_in_both_engines(folder: ScoresFolder, method: str) -> None:
    order, left_out = by_hand(folder, method)
    ranking = rank(columns_of(folder), method)
    assert ranking.order.tolist() == order and ranking.left_out == left_out
    assert ranking.total == ROWS and ranking.method == method
    with rank_parts(folder, method, temp_dir=folder.path) as big:
        assert (big.scored, big.left_out) == (len(order), left_out)
        for share in (1, 0.3, 1.0):
            wanted = keep(ranking, keep=share).tolist()
            assert wanted == order[: len(wanted)]
            assert big.keep(keep=share, best_first=True).best_first == wanted
        ends, _, ranks = big.ends(3)
        assert torch.equal(ends.order, ranking.order[torch.tensor(ranks) - 1])
        assert torch.equal(ends.value, ranking.value[torch.tensor(ranks) - 1])


def test_rows_with_an_ifd_of_one_or_more_are_left_out_and_told(folder: ScoresFolder) -> None:
    assert by_hand(folder, "ifd")[1] > 10 < by_hand(folder, "ifd-loss")[1]
    kept = rank(columns_of(folder), "ifd").order.tolist()
    table = folder.table().to_pylist()
    assert max(table[row]["ifd_ppl"] for row in kept) < 1
    assert rank(columns_of(folder), "ifd_ppl").left_out == 0


def test_another_learning_rate_changes_don_and_no_other_column(folder: ScoresFolder) -> None:
    for method in ("don@low", "el2n"):
        ranking = rank(columns_of(folder, 0.1), method)
        with rank_parts(folder, method, lr=0.1) as big:
            assert big.keep(keep=0.5, best_first=True).best_first == keep(ranking, keep=0.5).tolist()
        assert (ranking.order.tolist() == by_hand(folder, method)[0]) == (method == "el2n")


@pytest.mark.parametrize("method", OWN_METHODS)
def test_further_columns_change_no_older_method_by_a_bit(folder: ScoresFolder, method: str) -> None:
    columns = columns_of(folder)
    plain = ScoreColumns(columns.row, columns.don, columns.nod, columns.loss)
    one, other = rank(columns, method, seed=3), rank(plain, method, seed=3)
    assert torch.equal(one.order, other.order) and one.left_out == 0
    assert one.value.numpy().tobytes() == other.value.numpy().tobytes()


def test_the_column_of_the_only_reference_set_needs_no_name() -> None:
    one, two = ["el2n", "influence_cos:val"], ["influence_cos:val", "influence_cos:test"]
    for name in ("influence_cos@low", "influence_cos:val@low"):
        found = find_method(name, one)
        assert found is not None and (found.column, found.high) == ("influence_cos:val", False)
    with pytest.raises(InputError, match="choose one of influence_cos:test, influence_cos:val"):
        find_method("influence_cos@high", two)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (
            "grand",
            r"needs the column grand, which is missing .* `donod-fast score … --signals grand --out DIR`",
        ),
        ("tokens", "add --prefer high or --prefer low"),
        ("answer_loss@low", "--signals ifd --out DIR"),
        ("embedding", "the column embedding is a vector, not a number"),
        ("ifd_unhelped", "the column ifd_unhelped is a flag, not a number"),
        ("topsis@low", "the order of method topsis is fixed"),
        ("el3n", "unknown method 'el3n'; known are topsis, .* ifd-loss, .* el2n, .* perplexity"),
    ],
)
def test_what_cannot_be_ranked_by_is_refused_with_what_to_do(folder: ScoresFolder, method: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        rank(columns_of(folder), method)
    with pytest.raises(InputError, match=told):
        rank_parts(folder, method)


def test_an_infinite_value_is_refused_by_row_in_both_engines(tmp_path: Path) -> None:
    values = [1.0, 2.0, math.inf, 3.0]
    columns = {"don": [1.0, 1.0, 1.0, 1.0], "nod": [1.0] * 4}
    folder = folder_of(tmp_path / "scores", columns, [2, 2], signals={"el2n": {"el2n": values}})
    for engine in (lambda: rank(columns_of(folder), "el2n"), lambda: rank_parts(folder, "el2n")):
        with pytest.raises(InputError, match="column el2n has an infinite score, at row 2"):
            engine()
    rank(columns_of(folder), "don")


def test_methods_are_checked_without_scores_and_name_their_signals() -> None:
    for method in ("el2n", "ifd", "ifd-loss@low", "loss@high", "tokens@low", "topsis", "perplexity"):
        check_known(method)
    for method in ("best", "tokens", "embedding", "topsis@high", "el2n@middle"):
        with pytest.raises(InputError):
            check_known(method)
    asked = ["topsis", "ifd", "don@low", "el2n", "ifd_loss@low", "tokens@high", "perplexity"]
    assert signals_of(asked) == ("ifd", "el2n", "perplexity")


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was scored with signals, which no test changes."""
    place = tmp_path_factory.mktemp("scored")
    data = write_lines(place / "a.jsonl", short_rows(40, seed=5))
    model = save_tiny("llama", place / "model")
    options = ["--model", model, "--device", "cpu", "--part-rows", "16", "--signals", "el2n,ifd,embedding"]
    done = invoke("score", data, *options, "--out", place / "out")
    assert done.code == 0, done.err
    return place / "out"


@pytest.mark.parametrize(
    "options", [["ifd"], ["el2n"], ["loss", "--prefer", "high"], ["scored_tokens", "--prefer", "low"]]
)
def test_select_writes_the_same_file_by_both_engines(scores: Path, tmp_path: Path, options: list[str]) -> None:
    told = []
    for engine in ("memory", "duckdb"):
        out = tmp_path / f"{engine}.jsonl"
        done = invoke(
            "select",
            scores,
            "--keep",
            "0.4",
            "--out",
            out,
            "--engine",
            engine,
            "--order",
            "best",
            "--json",
            "--method",
            *options,
        )
        assert done.code == 0, done.err
        told.append({**json.loads(done.out), "out": "", "engine": ""})
    assert (tmp_path / "memory.jsonl").read_bytes() == (tmp_path / "duckdb.jsonl").read_bytes()
    assert told[0] == told[1]
    table = ScoresFolder.open(scores).table().to_pylist()
    unhelped = sum(row["ifd_ppl"] >= 1 for row in table)
    assert unhelped > 0 and told[0]["left_out"] == ({"IFD ≥ 1": unhelped} if options == ["ifd"] else {})
    assert told[0]["method"] == options[0] + ("@" + options[2] if len(options) > 1 else "")


def test_select_and_rank_say_what_was_left_out_and_what_is_wrong(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    done = invoke("select", scores, "--method", "ifd", "--keep", "0.4", "--out", out)
    assert "rows with IFD ≥ 1 are left out" in done.out and "rows have no score" in done.out
    assert invoke("rank", scores, "--method", "el2n", "--prefer", "low", "--count", "1").code == 0
    options = ["--keep", "3", "--out", tmp_path / "t.jsonl"]
    assert_one_line_error(invoke("select", scores, "--method", "grand", *options), 2, "--signals grand --out DIR")
    assert_one_line_error(
        invoke("select", scores, "--prefer", "high", *options), 2, "the order of method topsis is fixed"
    )
    assert_one_line_error(
        invoke("select", scores, "--method", "el2n", "--prefer", "big", *options), 2, "--prefer must be"
    )
    assert_one_line_error(invoke("select", scores, "--method", "tokens", *options), 2, "--prefer high or --prefer low")
    assert not (tmp_path / "t.jsonl").exists()
