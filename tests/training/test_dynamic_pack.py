"""Dynamic pack: which samples share a row, the contents of a packed batch, and isolation of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pack_cases import alone, drawn, summed_loss
from tiny_models import KINDS, tiny_model
from torch import Tensor

import donod_fast
from donod_fast.errors import InputError, ModelError
from donod_fast.models.varlen_attention import plain_varlen
from donod_fast.training.dynamic_pack import DynamicPackCollator, Isolation, isolate, packed_rows

MODEL = Path(donod_fast.__file__).parent / "studies" / "family" / "data" / "model"


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def doubled(kind: str, **overrides: Any) -> Any:
    return tiny_model(kind, **overrides).double()


def test_the_papers_rows_are_filled_in_order_of_length() -> None:
    assert packed_rows([5, 2, 9, 3, 7], 10) == [[1, 3, 0], [4], [2]]  # 2 + 3 + 5, then 7, then 9
    assert packed_rows([4, 4, 4], 12) == [[0, 1, 2]]
    assert packed_rows([10, 10], 10) == [[0], [1]]


@pytest.mark.parametrize("seed", range(5))
def test_even_rows_hold_every_sample_once_with_no_more_padding(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 60, 23).tolist()
    paper, even = packed_rows(lengths, 100), packed_rows(lengths, 100, even=True)
    assert sorted(at for row in even for at in row) == list(range(23))
    assert len(even) == len(paper)
    filled = [sum(lengths[at] for at in row) for row in even]
    assert max(filled) <= max(sum(lengths[at] for at in row) for row in paper) <= 100


def test_even_rows_that_would_overfill_are_the_papers() -> None:
    assert packed_rows([2, 2, 2, 3, 3], 6, even=True) == [[0, 1, 2], [3, 4]]  # evenly: 3 + 2 + 2 and 3 + 2


def test_samples_of_a_paper_batch_attend_to_each_other() -> None:
    samples = [{"input_ids": ids, "labels": ids} for ids in ([7, 8, 9], [5, 6], [10, 11, 12, 13])]
    batch = DynamicPackCollator(6, pad_id=1)(samples)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [10, 11, 12, 13, 1]]
    assert batch["labels"].tolist() == [[-100, 6, -100, 8, 9], [-100, 11, 12, 13, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert set(batch) == {"input_ids", "labels", "attention_mask"}  # no positions: they run on


def test_an_isolated_batch_restarts_positions_and_bounds_cover_every_slot() -> None:
    samples = [{"input_ids": ids, "labels": ids} for ids in ([7, 8, 9], [5, 6], [10, 11, 12, 13])]
    batch = DynamicPackCollator(6, 1, Isolation("bounds"))(samples)
    assert batch["input_ids"].tolist() == [[10, 11, 12, 13, 1], [7, 8, 9, 5, 6]]
    assert batch["labels"].tolist() == [[-100, 11, 12, 13, -100], [-100, 8, 9, -100, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 4, 5, 8, 10]
    assert batch["max_length_q"] == batch["max_length_k"] == 4
    mask = DynamicPackCollator(6, 1, Isolation("mask"))(samples)["attention_mask"]
    assert mask[1, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_padding_and_labels_that_a_sample_brings_are_taken_as_they_are() -> None:
    features = [
        {"input_ids": torch.tensor([5, 6, 7, 0]), "attention_mask": torch.tensor([1, 1, 1, 0])},
        {"input_ids": [8, 9], "labels": [-100, 9], "token_type_ids": [0, 0]},
    ]
    batch = DynamicPackCollator(8)(features)
    assert batch["input_ids"].tolist() == [[8, 9, 5, 6, 7]]
    assert batch["labels"].tolist() == [[-100, 9, -100, 6, 7]]


@pytest.mark.parametrize("isolated", [False, True])
def test_samples_past_the_limit_are_cut_and_counted(isolated: bool) -> None:
    collator = DynamicPackCollator(6, isolation=Isolation("positions") if isolated else None)
    batch = collator(drawn((9, 6, 7)))
    assert batch["input_ids"].shape == (3, 6) and collator.truncated == 2
    assert sorted(batch["input_ids"].tolist()) == sorted(sample["input_ids"][:6] for sample in drawn((9, 6, 7)))


def test_what_cannot_be_packed_is_refused_with_a_reason() -> None:
    with pytest.raises(InputError, match="max_length 1 is too small"):
        DynamicPackCollator(1)
    with pytest.raises(InputError, match="the batch is empty"):
        DynamicPackCollator(8)([])
    with pytest.raises(InputError, match="sample 1 of the batch has no input_ids; it has text"):
        DynamicPackCollator(8)([{"input_ids": [1, 2]}, {"text": [1]}])
    with pytest.raises(InputError, match="sample 0 of the batch has 3 tokens, 2 labels"):
        DynamicPackCollator(8)([{"input_ids": [1, 2, 3], "labels": [1, 2]}])
    with pytest.raises(InputError, match="'dense' is not known; use 'paper', 'isolated'"):
        DynamicPackCollator.for_model(tiny_model("llama"), 8, variant="dense")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_length 256 is past the model's 128 positions"):
        DynamicPackCollator.for_model(tiny_model("llama"), 256, variant="paper")
    DynamicPackCollator.for_model(tiny_model("llama"), 256)  # positions start again: no limit to a row


@pytest.mark.parametrize("way", ["positions", "mask"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "olmo2", "phi"])
def test_isolated_gradients_are_those_of_the_samples_alone(kind: str, way: Any) -> None:
    model, samples = doubled(kind), drawn()
    batch = DynamicPackCollator(32, isolation=Isolation(way))(samples)
    assert len(batch["input_ids"]) < len(samples)
    expected = gradients(model, alone(model, samples))
    for name, found in gradients(model, summed_loss(model, batch)).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-11)


def test_windows_are_counted_within_samples() -> None:
    model, samples = doubled("mistral"), drawn()  # a window of four tokens
    collator = DynamicPackCollator.for_model(model, 32)
    assert collator.isolation is not None and collator.isolation.way == "positions"
    expected = gradients(model, alone(model, samples))
    for name, found in gradients(model, summed_loss(model, collator(samples))).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-11)


def test_the_papers_samples_change_the_losses_of_those_after_them() -> None:
    model, samples = doubled("llama"), drawn()
    with torch.no_grad():
        packed = summed_loss(model, DynamicPackCollator(32)(samples))
        expected = alone(model, samples)
    assert abs(float(packed / expected) - 1) > 1e-3


def test_what_is_taken_for_flash_attention_gets_bounds_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface

    asked: list[Any] = []

    def flat(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
        """As flash attention does it: all rows one after the other, and nothing but the bounds parts them."""
        if "cu_seq_lens_q" not in options:  # a sample alone
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            return out.transpose(1, 2), None
        asked.append(mask)
        heads = [x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)]
        bounds, longest = options["cu_seq_lens_k"], options["max_length_k"]
        out = plain_varlen(*heads, bounds, longest, scale=options["scaling"], window=None, softcap=None, sinks=None)
        return out.unflatten(0, (query.shape[0], -1)), None

    AttentionInterface.register("test_flat_attention", flat)
    model, samples = doubled("llama"), drawn()
    model.set_attn_implementation("test_flat_attention")
    collator = DynamicPackCollator.for_model(model, 32)
    assert collator.isolation is not None and collator.isolation.way == "bounds"
    assert asked and all(mask is None for mask in asked)
    expected = gradients(model, alone(model, samples))
    for name, found in gradients(model, summed_loss(model, collator(samples))).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "falcon-h1"])
def test_every_attention_model_is_proved_to_isolate(kind: str) -> None:
    model = tiny_model(kind).train()
    found = isolate(model, 64)
    assert found.way == "positions" and found.error < 1e-5 and model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trained_model_isolates_and_keeps_its_losses(dtype: torch.dtype) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype)
    collator = DynamicPackCollator.for_model(model, 32)
    assert collator.isolation is not None and collator.isolation.error < (1e-5 if dtype == torch.float32 else 1e-2)
    samples = drawn()
    with torch.no_grad():
        packed, expected = summed_loss(model.float(), collator(samples)), alone(model, samples)
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=0)


def test_a_model_with_a_state_that_runs_on_is_refused() -> None:
    if "falcon-h1" not in KINDS:
        pytest.skip("this release of transformers has no falcon-h1")
    with pytest.raises(ModelError, match=r"cannot be packed in isolation: it has .*train without packing"):
        DynamicPackCollator.for_model(tiny_model("falcon-h1"), 64)


def without_positions(model: Any) -> Any:
    """A model that makes no mask of positions, as transformers' older ones and models of their own code."""
    inner = model.model.forward

    def forward(*args: Any, **given: Any) -> Any:
        rows, longest = given["input_ids"].shape
        if given.get("attention_mask") is None:
            given["attention_mask"] = torch.ones(rows, longest, dtype=torch.int64)
        return inner(*args, **given)

    model.model.forward = forward
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_that_makes_no_mask_of_positions_gets_one(attention: str) -> None:
    model, samples = without_positions(tiny_model("llama", attn_implementation=attention)), drawn()
    collator = DynamicPackCollator.for_model(model, 32)
    assert collator.isolation is not None and collator.isolation.way == "mask"
    with torch.no_grad():
        torch.testing.assert_close(summed_loss(model, collator(samples)), alone(model, samples), rtol=1e-5, atol=0)


def test_a_model_that_neither_way_isolates_is_refused_with_both_reasons() -> None:
    with pytest.raises(
        ModelError, match=r"place of its sliding window of 4; by positions, the loss of a token changes"
    ):
        isolate(without_positions(tiny_model("mistral")), 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_leak_is_found_in_whole_and_in_half_precision(dtype: torch.dtype) -> None:
    blind = tiny_model("llama").to(dtype)
    blind.model.layers[0].register_forward_hook(lambda module, args, output: output + output.mean(1, keepdim=True))
    with pytest.raises(ModelError, match=r"by positions, the loss of .*; by mask, the loss of a token changes"):
        isolate(blind, 64)


def test_a_model_whose_positions_do_not_start_again_is_refused() -> None:
    model = tiny_model("gpt2")  # its positions are absolute
    inner = model.transformer.forward

    def forward(*args: Any, **given: Any) -> Any:
        positions = given.pop("position_ids", None)
        if positions is not None:
            given["attention_mask"] = _blocks(positions)
        return inner(*args, **given)

    model.transformer.forward = forward
    with pytest.raises(ModelError, match="the losses of packed tokens differ from those alone"):
        isolate(model, 64)


def _blocks(positions: Tensor) -> Tensor:
    part = (positions == 0).cumsum(-1)
    return ((part[:, :, None] == part[:, None]) & torch.ones(part.shape[1], part.shape[1]).tril().bool())[:, None]
