"""Training under a parameter mask: entries in it learn normally, all others stay bit-for-bit identical."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dual_cases import question_rows
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.models.parameter_mask import read_mask, write_mask

pytest.importorskip("trl", reason="the extra `train` is not installed")

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record
from donod_fast.training import TrainSettings, prepare_rows, train, train_model
from donod_fast.training.samples import TrainingRows

DOWN, HEAD = "model.layers.1.mlp.down_proj.weight", "lm_head.weight"


def rows(count: int = 24) -> TrainingRows:
    masker = Masker(tiny_tokenizer(), MaskSettings(), vocab_size=101)
    return prepare_rows([Record(i, "data.jsonl", "", row) for i, row in enumerate(question_rows(count))], masker)


def settings(**given: Any) -> TrainSettings:
    return TrainSettings(**{"model": "unused", "learning_rate": 1e-3, "micro_batch": 8, **given})


def random_mask(model: Any, *names: str, share: float = 0.2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    parameters = dict(model.named_parameters())
    return {name: torch.rand(parameters[name].shape, generator=generator) < share for name in names}


@pytest.fixture
def masked(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    masks = random_mask(tiny_model("llama"), DOWN, HEAD)
    write_mask(tmp_path / "mask.safetensors", masks)
    return tmp_path / "mask.safetensors", masks


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw_torch", "weight_decay": 0.5},
        {"optimizer": "adamw_torch_fused", "weight_decay": 0.5, "micro_batch": 4},  # accumulated gradients
        {"optimizer": "adafactor", "weight_decay": 0.5},  # its second moments are shared by rows and columns
        {"optimizer": "rmsprop", "max_grad_norm": 0.0},
    ],
    ids=lambda options: options["optimizer"],
)
def test_entries_outside_of_the_mask_stay_bit_by_bit(
    masked: tuple[Path, dict[str, torch.Tensor]], options: dict[str, Any]
) -> None:
    file, masks = masked
    model = tiny_model("llama")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    needed = [parameter.requires_grad for parameter in model.parameters()]
    stats = train_model(model, tiny_tokenizer(), rows(), settings(parameter_mask=str(file), epochs=3, **options))
    for name, value in model.named_parameters():
        changed = value.detach().view(torch.int32) != before[name].view(torch.int32)
        if name in masks:
            assert not (changed & ~masks[name]).any()
            assert (changed & masks[name]).sum() > 0.9 * masks[name].sum()
        else:
            assert not changed.any()
    assert stats.trainable == sum(int(mask.sum()) for mask in masks.values())
    assert [parameter.requires_grad for parameter in model.parameters()] == needed
    assert all(not parameter._backward_hooks for parameter in model.parameters())


def test_within_the_mask_a_step_is_that_of_the_whole_training(masked: tuple[Path, dict[str, torch.Tensor]]) -> None:
    file, masks = masked
    one, all_ = tiny_model("llama"), tiny_model("llama")
    options = {"max_steps": 1, "max_grad_norm": 0.0, "weight_decay": 0.1, "warmup_ratio": 0.0, "schedule": "constant"}
    train_model(one, tiny_tokenizer(), rows(), settings(parameter_mask=str(file), **options))
    train_model(all_, tiny_tokenizer(), rows(), settings(**options))
    whole = dict(all_.named_parameters())
    for name, value in one.named_parameters():
        if name in masks:
            torch.testing.assert_close(value[masks[name]], whole[name][masks[name]], rtol=1e-5, atol=1e-7)


def test_gradients_are_clipped_by_the_norm_of_the_allowed_entries(
    masked: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    file, _ = masked
    model = tiny_model("llama")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    options = {"max_steps": 1, "optimizer": "sgd", "max_grad_norm": 1e-2, "warmup_ratio": 0.0, "schedule": "constant"}
    train_model(model, tiny_tokenizer(), rows(), settings(parameter_mask=str(file), learning_rate=1.0, **options))
    moved = [(value.detach() - before[name]).norm() ** 2 for name, value in model.named_parameters()]
    assert float(sum(moved)) ** 0.5 == pytest.approx(1e-2, rel=1e-3)


def test_a_folder_is_of_one_mask_by_its_content(tmp_path: Path, masked: tuple[Path, dict[str, torch.Tensor]]) -> None:
    file, masks = masked
    base = save_tiny("llama", tmp_path / "base")
    chosen = settings(model=str(base), parameter_mask=str(file), save_steps=2, max_steps=4)

    class Stopped(Exception):
        pass

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise Stopped

    whole = train(chosen, question_rows(24), tmp_path / "whole")
    with pytest.raises(Stopped):
        train(chosen, question_rows(24), tmp_path / "out", progress=stop)
    # The same mask in another place and in the form written by hand: the training continues.
    save_file({name: mask.clone() for name, mask in masks.items()}, tmp_path / "other.safetensors")
    moved = chosen.model_copy(update={"parameter_mask": str(tmp_path / "other.safetensors")})
    resumed = train(moved, question_rows(24), tmp_path / "out")
    assert resumed.resumed == 2
    trained, straight = (load_file(o.folder / "model.safetensors") for o in (resumed, whole))
    base_weights = load_file(base / "model.safetensors")
    for name, value in trained.items():
        outside = ~masks.get(name, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(value, straight[name]) and torch.equal(value[outside], base_weights[name][outside])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["trained_parameters"] == read_mask(file).entries
    masks[HEAD][0, 0] = ~masks[HEAD][0, 0]
    write_mask(file, masks, overwrite=True)
    with pytest.raises(SettingsMismatchError, match=r"settings\.parameter_mask_sha256"):
        train(chosen, question_rows(24), tmp_path / "out")
    with pytest.raises(SettingsMismatchError, match=r"settings\.parameter_mask_sha256"):
        train(chosen.model_copy(update={"parameter_mask": None}), question_rows(24), tmp_path / "out")


def test_the_command_line_takes_a_mask(tmp_path: Path, masked: tuple[Path, dict[str, torch.Tensor]]) -> None:
    import typer
    from typer.testing import CliRunner

    from donod_fast.cli.train import train as command

    base = save_tiny("llama", tmp_path / "base")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in question_rows(8)))
    app = typer.Typer()
    app.command()(command)
    arguments = ["--model", base, "--data", tmp_path / "data.jsonl", "--out", tmp_path / "out", "--mask", masked[0]]
    result = CliRunner().invoke(
        app, [*map(str, arguments), "--set", "train.max_steps=1", "--set", "train.warmup_ratio=0", "-q"]
    )
    assert result.exception is None
    done = load_file(tmp_path / "out" / "model" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert {name for name in done if not torch.equal(done[name], before[name])} == {HEAD, DOWN}


def test_a_mask_of_another_model_is_refused_by_the_parameters_name(tmp_path: Path) -> None:
    file, model = tmp_path / "mask.safetensors", tiny_model("llama")
    for masks, words in (
        ({"model.layers.7.x.weight": torch.ones(2, dtype=torch.bool)}, "no parameter 'model.layers.7.x.weight'"),
        ({DOWN: torch.ones(3, 5, dtype=torch.bool)}, rf"{DOWN} has shape \(32, 48\) in the model and \(3, 5\)"),
    ):
        write_mask(file, masks, overwrite=True)
        with pytest.raises(InputError, match=words):
            train_model(model, tiny_tokenizer(), rows(4), settings(parameter_mask=str(file)))
    tied = tiny_model("llama-tied")
    write_mask(file, {HEAD: torch.ones(101, 32, dtype=torch.bool)}, overwrite=True)
    with pytest.raises(InputError, match=r"lm_head.weight is the same tensor as model.embed_tokens.weight"):
        train_model(tied, tiny_tokenizer(), rows(4), settings(parameter_mask=str(file)))


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_take_no_mask(method: str) -> None:
    with pytest.raises(ValueError, match=f"method {method} trains adapters in addition; use method: full"):
        settings(parameter_mask="mask.safetensors", method=method)


def test_a_mask_file_is_read_as_it_was_written_or_refused(tmp_path: Path) -> None:
    masks = {"a": torch.rand(3, 7) < 0.5, "b": torch.ones(9, dtype=torch.bool), "c": torch.zeros(1, dtype=torch.bool)}
    written = write_mask(tmp_path / "mask.safetensors", masks)
    found = read_mask(tmp_path / "mask.safetensors")
    assert all(torch.equal(found.masks[name], masks[name]) for name in masks) and found.digest == written.digest
    assert (tmp_path / "mask.safetensors").stat().st_size < 500
    with pytest.raises(StoreError, match="exists already"):
        write_mask(tmp_path / "mask.safetensors", masks)
    with pytest.raises(InputError, match="allows no entry to change"):
        write_mask(tmp_path / "none.safetensors", {"c": masks["c"]})
    with pytest.raises(InputError, match=r"must be bool, not torch\.float32"):
        write_mask(tmp_path / "none.safetensors", {"c": torch.ones(2)})
    save_file({"a": torch.ones(4)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"weights.safetensors: a is a torch.float32 tensor"):
        read_mask(tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("no mask")
    for name in ("text.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match="cannot be read"):
            read_mask(tmp_path / name)
