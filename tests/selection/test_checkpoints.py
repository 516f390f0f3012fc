"""A column over checkpoints is the mean weighted by learning rates, and only folders of one corpus are averaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.scores.folder import ScoresFolder

RATES = {"one": 3e-5, "two": 1e-5, "three": 2e-6}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Scores of one corpus by three models, and of another corpus, with other references, and without the column."""
    place = tmp_path_factory.mktemp("checkpoints")
    data = write_lines(place / "data.jsonl", short_rows(20, seed=1))
    other = write_lines(place / "other.jsonl", short_rows(20, seed=2))
    sets = [write_lines(place / f"val{at}.jsonl", short_rows(6, seed=30 + at)) for at in range(2)]
    model, found = tiny_model("llama"), {}
    tiny_tokenizer().save_pretrained(place / "model")

    def score(name: str, rows: Path, rate: float, *more: Any) -> None:
        model.save_pretrained(place / "model")
        options = ["--device", "cpu", "--lr", rate, "--allow-overlap", "--out", place / name, "--quiet", *more]
        done = invoke("score", rows, "--model", place / "model", *options)
        assert done.code == 0, done.err
        found[name] = place / name

    compared = ["--signals", "less-head,bm25", "--reference", sets[0]]
    for name, rate in RATES.items():
        score(name, data, rate, *compared)
        for weight in model.parameters():
            weight.data.mul_(1.05)
    score("other data", other, 1e-5, *compared)
    score("other set", data, 1e-5, "--signals", "less-head", "--reference", sets[1])
    for weight in model.parameters():
        weight.data.mul_(1.05)
    score("no column", data, 1e-5)
    return found


def test_the_column_is_the_mean_by_learning_rates(folders: Mapping[str, Path]) -> None:
    columns = {name: ScoresFolder.open(folders[name]).table().column("less_head").to_pylist() for name in RATES}
    mean = [sum(rate * columns[name][row] for name, rate in RATES.items()) / sum(RATES.values()) for row in range(20)]
    wanted = sorted((row for row in range(20) if not math.isnan(mean[row])), key=lambda row: (-mean[row], row))
    more = ["--checkpoint", folders["two"], "--checkpoint", folders["three"]]
    done = invoke("rank", folders["one"], "--method", "less_head", *more, "--count", 50, "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)["rows"]
    assert [row["row"] for row in shown] == wanted
    assert [row["value"] for row in shown] == pytest.approx([mean[row] for row in wanted], rel=1e-12)
    alone = sorted(wanted, key=lambda row: (-columns["one"][row], row))
    assert alone != wanted, "the other checkpoints should matter"


@pytest.mark.parametrize(
    ("method", "others", "more", "told"),
    [
        ("less_head", ["other data"], (), "scores of other data"),
        ("less_head", ["two", "two"], (), "of the same model; name each checkpoint once"),
        ("less_head", ["one"], (), "of the same model"),
        ("less_head", ["other set"], (), "with other settings or reference sets"),
        ("less_head", ["no column"], (), "has no column less_head"),
        ("topsis", ["two"], (), "averages a column"),
        ("loss", ["two"], (), "averages a column"),
        ("tokens@high", ["two"], (), "of a further criterion"),
        ("less_head", ["two"], ("--engine", "duckdb"), "remove --by and --engine duckdb"),
        ("less_head", ["two"], ("--memory", "1KB"), "raise --memory"),
    ],
)
def test_what_is_no_checkpoint_of_it_is_refused(
    folders: Mapping[str, Path], method: str, others: list[str], more: tuple[str, ...], told: str
) -> None:
    given = [word for name in others for word in ("--checkpoint", folders[name])]
    assert_one_line_error(invoke("rank", folders["one"], "--method", method, *given, *more), 2, told)
