"""Dynamic pack in trainings: TRL through ``train_model`` and the command line, and a plain Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pack_cases import alone, drawn
from tiny_models import save_tiny, tiny_model, tiny_tokenizer
from training_cases import prepared, question_rows, settings, weights

from donod_fast.cli.train import train as train_command
from donod_fast.errors import InputError, ModelError, SettingsMismatchError
from donod_fast.training import train
from donod_fast.training.dynamic_pack import DynamicPackCollator
from donod_fast.training.planning import TokenCounts, plan_training
from donod_fast.training.recipe_files import recipe_from
from donod_fast.training.trainer import train_model


def shapes_fed(model: Any) -> list[tuple[int, int]]:
    """(rows, longest) of every batch that the model is trained on, as it goes."""
    fed: list[tuple[int, int]] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training:
            fed.append(tuple(kwargs["input_ids"].shape))

    model.register_forward_pre_hook(look, with_kwargs=True)
    return fed


def test_an_isolated_training_is_the_unpacked_one_in_fewer_rows() -> None:
    rows, found, losses, fed = prepared(question_rows(21)), {}, {}, {}
    for packing in ("none", "isolated", "paper"):
        model = tiny_model("llama")
        fed[packing] = shapes_fed(model)
        stats = train_model(
            model,
            tiny_tokenizer(),
            rows,
            settings(global_batch=16, micro_batch=8, packing=packing, schedule="constant", warmup_ratio=0.0, epochs=2),
        )
        found[packing], losses[packing] = weights(model), [loss for _, loss in stats.losses]
        assert (stats.rows, stats.steps) == (42, 4)
    assert losses["isolated"] == pytest.approx(losses["none"], rel=1e-5)
    assert losses["paper"] != pytest.approx(losses["none"], rel=1e-3)
    for name, parameter in found["none"].items():
        torch.testing.assert_close(found["isolated"][name], parameter, rtol=0, atol=1e-4)  # of 4e-3 that they moved
    assert [len(shapes) for shapes in fed.values()] == [6, 6, 6]
    for none, isolated in zip(fed["none"], fed["isolated"], strict=True):
        assert isolated[0] < none[0] and isolated[1] <= 128  # the tokenizer's limit
        assert isolated[0] * isolated[1] <= none[0] * none[1]


def test_packing_works_with_adapters_checkpointing_and_a_custom_length() -> None:
    rows, found = prepared(question_rows(16)), []
    options = {"method": "lora", "lora": {"rank": 2}, "gradient_checkpointing": True, "max_length": 60, "max_steps": 2}
    for packing in ("none", "isolated"):
        model = tiny_model("llama")
        fed = shapes_fed(model)
        train_model(model, tiny_tokenizer(), rows, settings(packing=packing, **options))
        found.append(weights(model))
    assert all(longest <= 60 for _, longest in fed) and not model.training
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=1e-4)


def test_a_model_that_cannot_isolate_is_not_trained() -> None:
    model = tiny_model("llama")
    model.model.layers[0].register_forward_hook(lambda module, args, output: output + output.mean(1, keepdim=True))
    before = weights(model)
    with pytest.raises(ModelError, match="cannot be packed in isolation"):
        train_model(model, tiny_tokenizer(), prepared(question_rows(8)), settings(packing="isolated"))
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())


def test_a_plain_trainer_packs_and_gives_the_gradients_of_single_samples(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    samples = drawn((9, 3, 20, 4, 14, 6, 2, 11))
    packed, single = tiny_model("llama"), tiny_model("llama")
    fed = shapes_fed(packed)
    trainer = Trainer(
        model=packed,
        args=TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=8, max_steps=1, learning_rate=1e-2, optim="sgd",
            max_grad_norm=0.0, lr_scheduler_type="constant", use_cpu=True, use_cache=True, report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(samples),
        data_collator=DynamicPackCollator.for_model(packed, max_length=32),
    )  # fmt: skip
    trainer.train()
    assert fed == [(3, 24)]  # 69 tokens
    targets = sum(label != -100 for sample in samples for label in sample["labels"][1:])
    (alone(single, samples) / targets).backward()
    for name, parameter in single.named_parameters():
        expected = parameter.data - 1e-2 * parameter.grad
        torch.testing.assert_close(packed.state_dict()[name], expected, rtol=0, atol=1e-6)


def test_packing_is_a_setting_that_decides_the_weights(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in question_rows(8)))
    overrides = ["train.micro_batch=8"]
    train_command(
        model=str(model), data=[str(data)], out=tmp_path / "out", set=overrides, packing="isolated", quiet=True
    )
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["packing"] == "isolated"
    with pytest.raises(SettingsMismatchError, match="packing"):
        train(settings(model=str(model), learning_rate=2e-5), question_rows(8), tmp_path / "out")
    plain = settings(model=str(model), max_steps=1)
    train(plain, question_rows(8), tmp_path / "plain")
    # A folder from before there was packing says nothing of it, and is the same training.
    assert "packing" not in json.loads((tmp_path / "plain" / "manifest.json").read_text())["settings"]


def test_a_recipe_that_has_nothing_to_pack_or_another_name_is_refused() -> None:
    for train_section, reason in (
        ({"model": "m", "packing": "isolated"}, "micro_batch is 1; raise it"),
        ({"model": "m", "packing": "dense", "micro_batch": 8}, r"train\.packing.*'none', 'paper' or 'isolated'"),
    ):
        with pytest.raises(InputError, match=reason):
            recipe_from({"name": "r", "train": train_section}, [], where="here")


def test_a_plan_counts_the_attention_to_other_samples_of_the_paper() -> None:
    counts = TokenCounts.of([100] * 64)
    config = tiny_model("llama").config
    none, isolated, paper = (
        plan_training(settings(packing=packing, max_length=128), counts, config=config).flops
        for packing in ("none", "isolated", "paper")
    )
    assert none == isolated
    longer = plan_training(settings(packing="paper", max_length=800), counts, config=config).flops
    assert none < paper < longer
