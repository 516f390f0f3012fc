"""Float8 for the head's gradients: settings, manifest, resumption, command line and self-check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import float8
from donod_fast.scoring import numerics_check
from donod_fast.scoring.numerics_check import check_scorer
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import HEAD_PRECISIONS, UpdateSettings

ROWS = short_rows(6, seed=3)


@pytest.fixture
def _small_models_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "LEAST_TOKENS", 8)
    monkeypatch.setattr(float8, "SMALL_HEAD", 0)


def tiny(**options: Any) -> Scorer:
    return Scorer(tiny_model("llama").to(torch.bfloat16), tiny_tokenizer(), token_budget=256, **options)


def test_the_choices_are_those_of_the_kernels() -> None:
    assert HEAD_PRECISIONS == float8.PRECISIONS


def test_only_float8_is_recorded_so_that_older_folders_stay_valid() -> None:
    assert "head_precision" not in UpdateSettings().as_dict()
    told = json.loads(json.dumps(UpdateSettings("sign", head_precision="float8").as_dict()))
    assert told["head_precision"] == "float8" and UpdateSettings(**told).head_precision == "float8"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"update": "sgd"}, "head precision float8 is for update adamw or sign, got sgd"),
        ({"update": "adamw-warm"}, "head precision float8 is for update adamw or sign, got adamw-warm"),
        ({"storage_dtype": "bfloat16"}, "head precision float8 is without a storage dtype, got bfloat16"),
    ],
)
def test_settings_without_a_gradient_product_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        UpdateSettings(**settings, head_precision="float8")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="head precision must be one of full, float8, got 'fp8'"):
        UpdateSettings(head_precision="fp8")


def test_a_small_head_is_refused_before_anything_is_scored() -> None:
    with pytest.raises(BackendError, match="precision 'float8' is not supported here: an output layer of"):
        tiny(head_precision="float8")


@pytest.mark.usefixtures("_small_models_count")
def test_long_rows_are_rounded_and_the_manifest_says_so() -> None:
    scorer, full = tiny(head_precision="float8"), tiny()
    assert scorer.describe()["update"]["head_precision"] == "float8"
    found, plain = (one.score_table(ROWS).to_pydict() for one in (scorer, full))
    long = {
        at: plain["scored_tokens"][at] >= float8.LEAST_TOKENS
        for at, status in enumerate(plain["status"])
        if status == "scored"
    }
    assert set(long.values()) == {True, False}
    for at, is_long in long.items():
        assert (found["don"][at] != plain["don"][at]) == is_long
        assert abs(found["don"][at] - plain["don"][at]) <= 0.05 * plain["nod"][at]
        assert found["loss"][at] == plain["loss"][at]


@pytest.mark.usefixtures("_small_models_count")
def test_the_check_measures_float8_against_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = tiny(head_precision="float8")
    lines = {(line.update, line.method): line for line in check_scorer(scorer, naive=False)}
    rounded = {update: line for (update, method), line in lines.items() if method == "ours, float8"}
    assert set(rounded) == {"adamw", "sign"}
    for update, line in rounded.items():
        assert line.limit == 1e-3
        assert line.don_error > 10 * lines[update, "ours"].don_error
    monkeypatch.setattr(numerics_check, "ERROR_LIMIT", 1e-9)
    assert [line.passed for line in check_scorer(scorer, naive=False) if line.method == "ours, float8"] == [False] * 2


def test_a_check_without_long_rows_is_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "SMALL_HEAD", 0)
    with pytest.raises(InputError, match="none of the rows has 400 scored tokens"):
        check_scorer(tiny(head_precision="float8"))


@pytest.mark.usefixtures("_small_models_count")
def test_the_check_takes_the_long_rows_of_the_data() -> None:
    scorer = tiny(head_precision="float8")
    from donod_fast.data.reading import corpus_of

    records = list(corpus_of(ROWS).records())
    found = numerics_check.long_records(scorer, records, 2)
    samples = scorer.masker.tokenize_many(found)
    assert 1 <= len(found) <= 2 and all(sample.scored_tokens >= 8 for sample in samples)


@pytest.mark.usefixtures("_small_models_count")
def test_the_command_line_scores_and_resumes_with_the_same_precision_only(tmp_path: Path) -> None:
    model, data = save_tiny("llama", tmp_path / "model"), write_lines(tmp_path / "rows.jsonl", ROWS)
    options = ["score", data, "--model", model, "--dtype", "bfloat16", "--device", "cpu", "--out", tmp_path / "out"]
    assert invoke(*options, "--head-precision", "float8").code == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["update"]["head_precision"] == "float8"
    assert_one_line_error(invoke(*options), 5, "update.head_precision: 'float8' in the folder, None requested")
    assert invoke(*options, "--head-precision", "float8").code == 0


def test_the_command_line_says_why_there_is_no_float8(tmp_path: Path) -> None:
    model, data = save_tiny("llama", tmp_path / "model"), write_lines(tmp_path / "rows.jsonl", ROWS)
    options = ["--model", model, "--device", "cpu", "--head-precision", "float8"]
    for asked in (["score", data, "--out", tmp_path / "out"], ["check"]):
        assert_one_line_error(invoke(*asked, *options), 2, "precision 'float8' is not supported here")
