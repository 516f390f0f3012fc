"""Float8 and off-loading on a CUDA device."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from score_runs import assert_same_bits, short_rows
from tiny_models import save_tiny

from donod_fast.errors import InputError
from donod_fast.models.loading import load_model
from donod_fast.models.precision import why_no_float8
from donod_fast.scores.rows import to_table
from donod_fast.scoring.scorer import Scorer, as_corpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ROWS = list(as_corpus(short_rows(200, seed=3)).records())
SHARED = Path(__file__).parents[2].parent / "shared"


def needs_float8() -> None:
    reason = why_no_float8(torch.device("cuda"))
    if reason is not None:
        pytest.skip(f"float8 {reason}")
    pytest.importorskip("torchao", reason="torchao is not installed")


def test_a_float8_trunk_scores_every_row_that_bfloat16_scores(tmp_path: Path) -> None:
    needs_float8()
    saved = save_tiny("llama", tmp_path, hidden_size=128, intermediate_size=256)
    plain = Scorer(load_model(saved, device="cuda", dtype="bfloat16"))
    low = Scorer(load_model(saved, device="cuda", precision="float8"))
    assert low.loaded.precision.startswith("float8 rowwise dynamic (torchao ")
    assert low.head.weight.dtype == torch.bfloat16 and torch.equal(low.head.weight, plain.head.weight)
    expected, found = plain.score_records(ROWS), low.score_records(ROWS)
    assert [row.status for row in found] == [row.status for row in expected]
    assert_same_bits(to_table(found), to_table(low.score_records(ROWS)))
    errors = [abs(a.loss - b.loss) / b.loss for a, b in zip(found, expected, strict=True) if b.status == "scored"]
    assert 1e-4 < median(errors) < 0.1  # another precision, the same model


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared is absent")
def test_float8_ranks_real_rows_as_bfloat16_does() -> None:
    needs_float8()
    from donod_fast.data.reading import open_corpus
    from donod_fast.selection.agreement import compare_runs, spread_rows

    model = SHARED / "models" / "tiny-instruct"
    records = spread_rows(open_corpus([str(SHARED / "data" / "gsm8k" / "test.jsonl")]), 200)
    agreement, reference, _ = compare_runs(
        lambda: Scorer(load_model(model, device="cuda", dtype="bfloat16")),
        lambda: Scorer(load_model(model, device="cuda", precision="float8")),
        records,
    )
    assert reference == "bfloat16" and agreement.passed(0.99), agreement


def test_a_device_before_ada_is_refused_by_name(tmp_path: Path) -> None:
    if why_no_float8(torch.device("cuda")) is None:
        pytest.skip("this device has float8")
    with pytest.raises(InputError, match=torch.cuda.get_device_name()):
        load_model(save_tiny("llama", tmp_path), device="cuda", precision="float8")


SPLITS: dict[str, Any] = {
    "second layer off-loaded": {"model.layers.1": "cpu"},
    "head off-loaded": {"lm_head": "cpu"},
    "embedding off-loaded": {"model.embed_tokens": "cpu"},
    "nearly all off-loaded": {"model.embed_tokens": "cpu", "model.layers.1": "cpu", "lm_head": "cpu"},
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_model_split_between_device_and_host_gives_equal_scores(name: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    saved = save_tiny("llama", tmp_path)
    parts = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")
    split = Scorer(load_model(saved, device_map={**dict.fromkeys(parts, 0), **SPLITS[name]}, dtype="float32"))
    whole = Scorer(load_model(saved, device="cuda", dtype="float32"))
    assert split.loaded.offloaded and split.loaded.device.type == "cuda"
    assert split.head.weight.is_cuda and torch.equal(split.head.weight, whole.head.weight)
    for found, expected in zip(split.score_records(ROWS), whole.score_records(ROWS), strict=True):
        assert found.status == expected.status
        if found.status == "scored":
            assert abs(found.don - expected.don) <= 1e-5 * expected.nod
            assert abs(found.nod - expected.nod) <= 1e-5 * expected.nod


def test_what_the_device_may_not_hold_stays_on_the_host(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    saved = save_tiny("llama", tmp_path)
    loaded = load_model(saved, device_map="auto", max_memory={0: "60KB", "cpu": "1GiB"})
    assert loaded.offloaded
    assert any(row.status == "scored" for row in Scorer(loaded).score_records(ROWS[:20]))
