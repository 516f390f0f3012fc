"""Margins of the gradient interaction matrix, compared with brute force and with the effect of real steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dual_cases import (
    DEMO,
    brute_matrix,
    in_double,
    measured_decrease,
    reference_loss,
    tiny_rows,
    tokenised,
    trained_demo,
)
from tiny_models import tiny_model

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.models.loading import load_model
from donod_fast.selection.dual import Chosen, Interactions, choose_layers, interact, reference_objective
from donod_fast.selection.dual.backward import prove_layers

SHARED = Path(__file__).parents[3].parent / "shared"
MIB = 1 << 20


def margins(
    chosen: Chosen, candidates: list[TokenizedSample], reference: list[TokenizedSample], **options: Any
) -> Interactions:
    objective = reference_objective(chosen, reference, token_budget=40, workspace_bytes=MIB)
    return interact(chosen, objective, [candidates[:2], candidates[2:]], workspace_bytes=MIB, **options)


def flat_importance(found: Interactions) -> torch.Tensor:
    return torch.cat([value.flatten() for value in found.importance.values()])


@pytest.mark.parametrize("row_sums", ["kernel", "matrix"])
@pytest.mark.parametrize(
    ("kind", "overrides", "layers"),
    [
        ("llama", {}, ("model.layers.1.self_attn.v_proj", "model.layers.0.mlp.down_proj", "lm_head")),
        ("gemma2", {"tie_word_embeddings": False}, ("model.layers.1.self_attn.q_proj", "lm_head")),  # soft-cap
        ("phi", {}, ("lm_head",)),  # a bias, and no inner layer
        ("granite", {}, ("model.layers.1.mlp.gate_proj", "lm_head")),  # scaled logits
        ("gpt2", {}, ("transformer.h.1.mlp.c_proj",)),  # (in, out) weights, and the output layer not chosen
    ],
)
def test_rows_and_columns_are_those_of_the_whole_matrix(
    kind: str, overrides: dict[str, Any], layers: tuple[str, ...], row_sums: str
) -> None:
    loaded = in_double(tiny_model(kind, **overrides))
    candidates, reference = tiny_rows(7)[2:], tiny_rows(2)
    chosen = choose_layers(loaded, layers)
    order = "second" if row_sums == "kernel" else "first"
    found = margins(chosen, candidates, reference, lr=0.3, order=order, row_sums=row_sums, token_budget=50)
    truth = brute_matrix(loaded.model, list(chosen.shapes), candidates, reference, 0.3, second=order == "second")
    rows = torch.tensor([row.second if order == "second" else row.first for row in found.utilities])
    torch.testing.assert_close(rows.double(), truth.sum(1), rtol=1e-6, atol=1e-7)
    columns = flat_importance(found)
    scale = truth.sum(0).abs().max()
    torch.testing.assert_close(columns / scale, truth.sum(0) / scale, rtol=0, atol=1e-6)


def test_both_margins_have_the_same_sum_and_do_not_depend_on_batches() -> None:
    chosen = choose_layers(in_double(tiny_model("llama")))
    candidates, reference = tiny_rows(9)[3:], tiny_rows(3)
    one = margins(chosen, candidates, reference, lr=0.1, order="second", token_budget=1)
    all_at_once = margins(chosen, candidates, reference, lr=0.1, order="second", token_budget=10_000)
    total = sum(row.second for row in one.utilities)
    assert total == pytest.approx(float(flat_importance(one).sum()), rel=1e-5)
    for a, b in zip(one.utilities, all_at_once.utilities, strict=True):
        assert (a.row, a.status) == (b.row, b.status) and a.second == pytest.approx(b.second, rel=1e-5)
    torch.testing.assert_close(flat_importance(one), flat_importance(all_at_once), rtol=1e-4, atol=1e-8)


def against_real_steps(
    loaded: Any, candidates: list[TokenizedSample], reference: list[TokenizedSample], *rates: float
) -> None:
    """Predicted against measured: first order after a small step, second order after larger ones.

    Norms of the model work in float32, so steps that are much smaller would measure their rounding.
    """
    chosen = choose_layers(loaded)
    names = list(chosen.shapes)
    objective = reference_objective(chosen, reference)
    before = reference_loss(loaded.model, reference)
    assert objective.loss == pytest.approx(before, rel=1e-6)

    def steps(lr: float) -> np.ndarray[Any, Any]:
        return np.array([measured_decrease(loaded.model, names, s, reference, lr, before) for s in candidates])

    found = interact(chosen, objective, [candidates], lr=1e-4, order="second").utilities
    predicted, measured = np.array([row.first for row in found]), steps(1e-4)
    assert np.corrcoef(predicted, measured)[0, 1] > 0.99
    assert np.polyfit(predicted, measured, 1)[0] == pytest.approx(1.0, abs=0.02)
    quadratic = np.array([row.first - row.second for row in found])
    for rate in rates:
        times, truth = rate / 1e-4, steps(rate)
        first = np.abs(predicted * times - truth)
        second = np.abs(predicted * times - quadratic * times**2 - truth)
        assert (second < first).mean() > 0.8
        assert np.median(second) < 0.3 * np.median(first)


def test_a_trained_model_does_what_is_predicted() -> None:
    loaded = trained_demo()
    records = [json.loads(line) for line in (DEMO / "corpus.jsonl").read_text().splitlines()[:10]]
    samples = tokenised(records, loaded.tokenizer, 1024)
    against_real_steps(loaded, samples[2:], samples[:2], 0.1, 0.5)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models" / "tiny-instruct").is_dir(), reason="the real data of ../shared is absent")
def test_real_rows_do_what_is_predicted() -> None:
    loaded = load_model(SHARED / "models" / "tiny-instruct", device="cpu")
    loaded = in_double(loaded.model, loaded.tokenizer)
    test = (SHARED / "data" / "gsm8k" / "test.jsonl").read_text().splitlines()[:1]
    train = (SHARED / "data" / "gsm8k" / "train.jsonl").read_text().splitlines()[6000:6002]
    other = json.loads((SHARED / "data" / "alpaca" / "alpaca_5000.json").read_text())[4000:4003]
    samples = tokenised([*map(json.loads, [*test, *train]), *other], loaded.tokenizer, 4096)
    against_real_steps(loaded, samples[1:], samples[:1], 0.1)


def test_rows_that_fail_have_a_status_and_leave_the_others_alone() -> None:
    model = tiny_model("llama")
    with torch.no_grad():  # the token of "Z" makes every state after it NaN
        model.get_input_embeddings().weight[tiny_rows_of("Z")] = float("nan")
    chosen = choose_layers(in_double(model), ("model.layers.1.mlp.*", "lm_head"))
    good, reference = tiny_rows(6)[2:], tiny_rows(2)
    poison = replace(spoiled("Z"), row=77)
    broken = TokenizedSample(5, "x", Status.NOT_PARSABLE, "line 6 is no JSON")
    found = margins(chosen, [*good[:2], broken, poison, *good[2:]], reference, lr=0.1, order="second")
    alone = margins(chosen, good, reference, lr=0.1, order="second")
    assert [row.status for row in found.utilities] == [*2 * ["scored"], "not_parsable", "non_finite", *2 * ["scored"]]
    assert np.isnan([found.utilities[2].first, found.utilities[3].second]).all()
    assert "NaN" in found.utilities[3].detail and found.utilities[2].detail == "line 6 is no JSON"
    left = [row for row in found.utilities if row.status == "scored"]
    assert [row.second for row in left] == pytest.approx([row.second for row in alone.utilities], rel=1e-5)
    torch.testing.assert_close(flat_importance(found), flat_importance(alone), rtol=1e-4, atol=1e-8)


def spoiled(letter: str) -> TokenizedSample:
    from tiny_models import tiny_tokenizer

    return tokenised([{"question": letter, "answer": "1"}], tiny_tokenizer(), 101)[0]


def tiny_rows_of(letter: str) -> int:
    from tiny_models import tiny_tokenizer

    return int(tiny_tokenizer().convert_tokens_to_ids(letter))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "olmo2", "gpt2", "gemma2"])
def test_the_default_is_the_last_layer_and_an_untied_output_layer(kind: str) -> None:
    loaded = in_double(tiny_model(kind))
    before = [parameter.requires_grad for parameter in loaded.model.parameters()]
    chosen = choose_layers(loaded)
    prove_layers(chosen, workspace_bytes=MIB)
    assert chosen.inner and all(".1." in layer.name for layer in chosen.inner)
    assert (chosen.output is None) == (kind in ("gpt2", "gemma2"))
    assert [parameter.requires_grad for parameter in loaded.model.parameters()] == before


def test_half_precision_is_served_within_its_rounding() -> None:
    model = tiny_model("llama")
    candidates, reference = tiny_rows(7)[2:], tiny_rows(2)
    from tiny_models import tiny_tokenizer

    from donod_fast.models.loading import wrap_model

    half = wrap_model(model.bfloat16(), tiny_tokenizer())
    exact = in_double(half.model)
    for order in ("first", "second"):
        found = margins(choose_layers(half), candidates, reference, lr=0.01, order=order)
        truth = margins(choose_layers(exact), candidates, reference, lr=0.01, order=order)
        error = (flat_importance(found).double() - flat_importance(truth)).norm() / flat_importance(truth).norm()
        assert error < 0.1
