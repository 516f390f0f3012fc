"""Plans of a training: counted shapes, memory compared with a real one, operations compared with the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer
from training_cases import prepared, settings

from donod_fast.errors import CorpusError, InputError
from donod_fast.models.shapes import SHAPES
from donod_fast.training import TokenCounts, TrainSettings, load_recipe, plan_training, recipe_counts
from donod_fast.training.model_size import model_config, model_size
from donod_fast.training.planning import ACCELERATORS, activation_bytes
from donod_fast.training.trainer import train_model

LLAMA = "meta-llama/Llama-2-7b-hf"


def test_llama_2_7b_has_its_parameters() -> None:
    size = model_size(model_config(LLAMA))
    assert size.parameters == 6_738_415_616
    assert size.by_module == {
        "embedding": 32000 * 4096,
        "attention": 32 * 4 * 4096 * 4096,
        "feed_forward": 32 * 3 * 4096 * 11008,
        "norms": 65 * 4096,
        "output": 32000 * 4096,
        "other": 0,
    }


def test_llama_3_1_8b_and_a_tied_model_are_counted_once() -> None:
    assert model_size(model_config("meta-llama/Llama-3.1-8B-Instruct")).parameters == 8_030_261_248
    model = tiny_model("llama-tied")
    size = model_size(model.config)
    assert size.parameters == sum(p.numel() for p in model.parameters()) and size.embedding == 0


def test_training_takes_8_bytes_per_bfloat16_and_16_per_float32_parameter() -> None:
    counts = TokenCounts.of([512] * 160)
    for dtype, width in (("bfloat16", 2), ("float32", 4)):
        plan = plan_training(TrainSettings(model=LLAMA, dtype=dtype), counts)
        assert plan.weight_bytes == plan.gradient_bytes == width * 6_738_415_616
        assert plan.optimizer_bytes == 2 * width * 6_738_415_616
    assert plan.gpus == 2  # 100 GiB and more on cards of 80


def test_adapters_and_four_bits_are_counted() -> None:
    counts = TokenCounts.of([512] * 160)
    lora = plan_training(TrainSettings(model=LLAMA, method="lora", gradient_checkpointing=True), counts)
    # Rank 16 on seven matrices of each of 32 layers: four 4096 × 4096, three between 4096 and 11008.
    assert lora.trained_parameters == 32 * 16 * (4 * 8192 + 3 * (4096 + 11008))
    assert lora.gpus == 1
    qlora = plan_training(TrainSettings(model=LLAMA, method="qlora", gradient_checkpointing=True), counts)
    assert 3.4 < qlora.weight_bytes / 2**30 < 4.0


def test_operations_are_six_a_weight_and_token_and_attention() -> None:
    counts = TokenCounts.of([1000, 2000])
    config = model_config(LLAMA)
    plan = plan_training(TrainSettings(model=LLAMA), counts, config=config)
    weights = 6_738_415_616 - 32000 * 4096
    attention = sum(3 * 2 * 2 * 32 * 4096 * n * n / 2 for n in (1000, 2000))
    assert plan.flops == pytest.approx(6 * weights * 3000 + attention, rel=1e-12)
    again = plan_training(TrainSettings(model=LLAMA, gradient_checkpointing=True), counts, config=config)
    assert again.flops == pytest.approx(plan.flops * 4 / 3, rel=1e-12)
    twice = plan_training(TrainSettings(model=LLAMA, epochs=2), counts, config=config)
    assert twice.flops == 2 * plan.flops and twice.tokens == 6000 and twice.steps == 2
    assert plan.gpu_hours == pytest.approx(plan.flops / 989.4e12 / 0.4 / 3600)


def test_a_number_of_tokens_is_enough_for_a_plan() -> None:
    plan = plan_training(TrainSettings(model="tiny", max_length=700), 1_000_000, gpu="a100")
    assert plan.counts.tokens == plan.tokens == 1_000_000 and plan.counts.longest == 700
    assert "512 tokens assumed" in plan.text() and "a100" in plan.text()
    assert plan.as_dict()["total_bytes"] == plan.total_bytes


@pytest.mark.parametrize("method", ["full", "lora"])
def test_activations_are_within_a_factor_of_two_of_those_of_a_real_step(method: str) -> None:
    model, rows = tiny_model("llama", hidden_size=64, intermediate_size=160), prepared([{"text": "abcdefgh" * 12}])
    chosen = settings(method=method, micro_batch=1, global_batch=1, dtype="float32")
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage: Any = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        train_model(model, tiny_tokenizer(), rows, chosen)
    guess = activation_bytes(chosen, model_size(model.config), int(rows.lengths[0]))
    assert 0.5 < guess / sum(kept.values()) < 2.0


def test_a_recipe_is_counted_without_its_weights_and_its_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("donod_fast.training.counting.hub_answers", lambda: False)
    recipe = load_recipe("llama-2-7b-code")
    counts = recipe_counts(recipe)
    assert counts.rows == recipe.score.stated_rows and "states" in counts.how and counts.longest == 1024
    assert counts.share(0.5).tokens == round(counts.tokens / 2)
    with pytest.raises(CorpusError, match="hub cannot be reached"):
        recipe_counts(recipe, data=["other/corpus"])


def test_tokens_of_an_available_corpus_are_counted_as_in_training() -> None:
    from transformers import AutoTokenizer

    from donod_fast.data.masking import Masker
    from donod_fast.data.reading import open_corpus
    from donod_fast.training import prepare_rows

    recipe = load_recipe("tiny")
    counts = recipe_counts(recipe)
    tokenizer = AutoTokenizer.from_pretrained(recipe.train.model)
    rows = prepare_rows(open_corpus(recipe.score.data), Masker(tokenizer, recipe.train.masks(), vocab_size=10**6))
    assert (counts.rows, counts.tokens, counts.how) == (len(rows), int(rows.lengths.sum()), "counted")


def test_an_unknown_accelerator_or_model_is_refused() -> None:
    with pytest.raises(InputError, match="known are a100, h100, h200"):
        plan_training(TrainSettings(model="tiny"), 10, gpu="b52")
    assert set(ACCELERATORS) == {"a100", "h100", "h200"} and "llama-2-7b" in SHAPES
