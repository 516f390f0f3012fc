"""The trunk: hidden states of padded batches without a mask, or a refusal if they would be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import KINDS, tiny_model, tiny_tokenizer
from transformers import BertConfig, BertLMHeadModel

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.models.batching import collate
from donod_fast.models.loading import load_model, wrap_model
from donod_fast.models.trunk import PADDING_TOLERANCE, Trunk, probe_tokens

SHARED = Path(__file__).parents[2].parent / "shared"


def trunk_of(model: Any) -> Trunk:
    return Trunk(wrap_model(model, tiny_tokenizer()))


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_after_the_final_norm(kind: str) -> None:
    model = tiny_model(kind)
    tokens = torch.arange(6, 26).reshape(2, 10)
    hidden = trunk_of(model)(tokens)
    with torch.no_grad():
        truth = model(input_ids=tokens, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(hidden, truth)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_the_hidden_states_of_a_row(kind: str) -> None:
    model = tiny_model(kind)
    trunk = trunk_of(model)
    rows = [torch.randint(6, 100, (n,), generator=torch.Generator().manual_seed(n)) for n in (3, 17, 9, 1)]
    batch = torch.full((len(rows), 17), trunk.pad_id)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = row
    hidden = trunk(batch)
    for i, row in enumerate(rows):
        torch.testing.assert_close(hidden[i, : len(row)], trunk(row[None])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2"])
def test_an_attention_mask_over_the_padding_changes_nothing(kind: str) -> None:
    model = tiny_model(kind)
    tokens = torch.arange(6, 26).reshape(2, 10)
    mask = torch.ones_like(tokens)
    mask[1, 4:] = 0
    tokens[1, 4:] = 0
    with torch.no_grad():
        masked = model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    hidden = trunk_of(model)(tokens)
    torch.testing.assert_close(hidden[0], masked[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hidden[1, :4], masked[1, :4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_measured_padding_error_is_within_the_tolerance_of_the_dtype(dtype: torch.dtype) -> None:
    assert trunk_of(tiny_model("llama").to(dtype)).padding_error <= PADDING_TOLERANCE[dtype] / 2


def test_a_model_whose_attention_sees_the_padding_is_refused() -> None:
    config = BertConfig(vocab_size=101, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    config.intermediate_size, config.initializer_range = 48, 0.3
    model = BertLMHeadModel(config)
    with pytest.raises(ModelError, match=r"BertLMHeadModel: tokens at the end change .* not causal"):
        trunk_of(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_architecture_switched_to_two_way_attention_is_refused(dtype: torch.dtype) -> None:
    class TwoWay(type(tiny_model("llama").model)):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
            everything = torch.zeros(input_ids.shape[0], 1, *(input_ids.shape[1],) * 2, dtype=self.dtype)
            return super().forward(input_ids=input_ids, **{**kwargs, "attention_mask": everything})

    model = tiny_model("llama").to(dtype)
    model.model.__class__ = TwoWay
    with pytest.raises(ModelError, match="not causal"):
        trunk_of(model)


def test_a_config_that_says_not_causal_is_refused() -> None:
    model = tiny_model("llama")
    model.config.is_causal = False
    with pytest.raises(ModelError, match="is_causal=False"):
        trunk_of(model)


def test_hidden_states_that_are_not_finite_are_refused_with_a_remedy() -> None:
    model = tiny_model("llama")
    model.model.norm.weight.data[3] = torch.inf
    with pytest.raises(ModelError, match=r"not finite in torch\.float32; load it with another dtype"):
        trunk_of(model)


def test_a_decoder_that_raises_is_a_model_error() -> None:
    model = tiny_model("llama")
    model.model.layers[0].self_attn.q_proj.weight.data = torch.zeros(0)  # as ZeRO-3 leaves it
    with pytest.raises(ModelError, match="its decoder cannot run"):
        trunk_of(model)


@pytest.mark.parametrize("bad", [torch.zeros(5, dtype=torch.int64), torch.zeros(2, 3), torch.zeros(0, 3).long()])
def test_ids_of_another_shape_or_type_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(InputError, match="input_ids"):
        trunk_of(tiny_model("llama"))(bad)


def test_states_of_a_padded_batch_equal_those_of_single_rows() -> None:
    trunk = trunk_of(tiny_model("llama"))
    flags = (False, True, False, False, True, False)
    samples = [TokenizedSample(0, "", Status.SCORED, "", ids, flags, 6) for ids in ((6, 7, 8, 9, 10, 11), (11,) * 6)]
    batch = collate(samples, (1, 0))
    assert batch.input_ids.tolist() == [[11] * 4, [6, 7, 8, 9]]
    assert torch.equal(trunk.states(batch), trunk(batch.input_ids).reshape(8, 32))


def test_nothing_is_cached_and_no_gradient_is_kept() -> None:
    model = tiny_model("llama")
    hidden = trunk_of(model)(torch.arange(6, 16)[None])
    assert hidden.is_inference() and not hidden.requires_grad


def test_probe_tokens_are_fixed_ordinary_and_spread() -> None:
    loaded = wrap_model(tiny_model("llama"), tiny_tokenizer())
    tokens = probe_tokens(loaded, rows=2, length=12)
    assert torch.equal(tokens, probe_tokens(loaded, rows=2, length=12))
    assert not set(tokens.flatten().tolist()) & set(loaded.tokenizer.all_special_ids)
    assert tokens.max() < 101 and len(set(tokens.flatten().tolist())) == 24


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared is absent")
def test_the_trunk_of_a_trained_model_passes_in_float32_and_in_bfloat16() -> None:
    for dtype in ("float32", "bfloat16"):
        loaded = load_model(SHARED / "models" / "tiny-instruct", dtype=dtype, device="cpu")
        trunk = Trunk(loaded)
        assert trunk.dim == 256
        assert trunk.padding_error <= PADDING_TOLERANCE[loaded.dtype] / 2
