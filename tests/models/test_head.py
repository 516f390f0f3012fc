"""The output layer: read from the config, proved against the model's own forward pass, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import HIDDEN, KINDS, VOCAB, save_tiny, tiny_model, tiny_tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutputWithPast

from donod_fast.errors import HeadMismatchError, ModelError
from donod_fast.models.head import TOLERANCES, Head, HeadProof, prove_head, read_head
from donod_fast.models.loading import load_model, wrap_model
from donod_fast.models.trunk import Trunk

SHARED = Path(__file__).parents[2].parent / "shared"
Llama: Any = type(tiny_model("llama"))

# What read_head has to find: logit scale, soft-cap, bias, tied.
EXPECTED = {
    "llama": (1.0, None, False, False),
    "llama-tied": (1.0, None, False, True),
    "mistral": (1.0, None, False, False),
    "qwen2": (1.0, None, False, False),
    "qwen3": (1.0, None, False, False),
    "gemma2": (1.0, 5.0, False, True),
    "cohere": (0.0625, None, False, True),
    "granite": (0.125, None, False, False),
    "phi": (1.0, None, True, False),
    "gpt2": (1.0, None, False, True),
    "olmo2": (1.0, None, False, False),
    "mixtral": (1.0, None, False, False),
    "qwen2-moe": (1.0, None, False, False),
    "falcon-h1": (0.25, None, False, False),
    "minicpm3": (0.5, None, False, False),
}


def prove(model: Any, head: Head | None = None) -> HeadProof:
    loaded = wrap_model(model, tiny_tokenizer())
    return prove_head(loaded, Trunk(loaded), head or read_head(model))


def mutant(change: Any, kind: str = "llama") -> Any:
    """A tiny model whose forward passes its logits through ``change``."""
    model = tiny_model(kind)

    class Mutant(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = change(output.logits)
            return output

    model.__class__ = Mutant
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_trunk_and_head_give_the_logits_of_the_model_itself(kind: str, tmp_path: Path) -> None:
    loaded = load_model(save_tiny(kind, tmp_path), device="cpu")
    trunk, head = Trunk(loaded), read_head(loaded.model)
    proof = prove_head(loaded, trunk, head)

    tokens = torch.arange(6, 46).reshape(4, 10)
    with torch.no_grad():
        own = loaded.model(input_ids=tokens).logits
        memory = tiny_model(kind)(input_ids=tokens).logits
    torch.testing.assert_close(head.logits(trunk(tokens)), own.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own, memory, rtol=1e-5, atol=1e-5)

    assert (head.logit_scale, head.softcap, head.bias is not None, head.tied) == EXPECTED[kind]
    assert head.weight.shape == (VOCAB, HIDDEN) == (proof.vocab_size, trunk.dim)
    assert proof.seen and proof.tolerance == 1e-4
    for error in (proof.hidden_error, proof.linear_error, proof.transform_error, proof.logits_error):
        assert error is not None and error <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "cohere", "phi", "mixtral"])
def test_the_proof_passes_in_other_dtypes_with_room_to_spare(kind: str, dtype: torch.dtype) -> None:
    if (kind, dtype) == ("mixtral", torch.float64):
        pytest.skip("transformers' grouped expert products take no float64")
    proof = prove(tiny_model(kind).to(dtype))
    assert proof.tolerance == TOLERANCES[dtype]
    assert proof.transform_error is not None
    assert max(proof.transform_error, proof.logits_error) <= proof.tolerance / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_logits_around_minus_100_is_not_a_mismatch(dtype: torch.dtype) -> None:
    model = tiny_model("phi")
    model.lm_head.bias.data -= 100  # as GPT-2's logits: a bfloat16 there has steps of half a nat
    proof = prove(model.to(dtype))
    assert proof.logits_error <= proof.tolerance / 2


def test_the_weight_is_the_live_parameter_and_needs_no_gradient() -> None:
    model = tiny_model("llama")
    head = read_head(model)
    model.lm_head.weight.data[0, 0] = 7.0
    assert head.weight[0, 0] == 7.0
    assert head.weight.data_ptr() == model.lm_head.weight.data_ptr() and not head.weight.requires_grad


CONSTANT = torch.linspace(-0.5, 0.5, VOCAB)
MUTANTS: dict[str, tuple[Any, str]] = {
    "multiplied": (lambda z: z * 0.5, r"multiplies its logits by 0\.5, we by 1"),
    "divided": (lambda z: z / 3, r"multiplies its logits by 0\.33"),
    "slightly multiplied": (lambda z: z * 1.002, r"multiplies its logits by 1\.002, we by 1"),
    "shifted": (lambda z: z + CONSTANT, r"adds a bias to its logits \(rms 0\.2915\)"),
    "slightly shifted": (lambda z: z + CONSTANT / 100, r"adds a bias to its logits \(rms 0\.002915\)"),
    "both": (lambda z: 2 * z + CONSTANT, r"multiplies its logits by 2, and adds a bias \(rms 0\.29"),
    "capped": (lambda z: 20 * torch.tanh(z / 20), r"soft-cap of 20 to its logits, we apply no cap"),
    "capped high": (lambda z: 100 * torch.tanh(z / 100), r"soft-cap of 100 to its logits, we apply no cap"),
    "scaled, capped": (
        lambda z: 20 * torch.tanh(z / 40),
        r"soft-cap of 20 to its logits and multiplies them by 0\.5",
    ),
    "cut": (
        lambda z: z[..., :90],
        r"gives 90 logits where its output layer has 101 rows \(it cuts the vocabulary\)",
    ),
    "padded": (lambda z: functional.pad(z, (0, 27)), r"gives 128 logits .*\(it pads the vocabulary\)"),
    "cubed": (lambda z: z**3, r"an unknown transform"),
    "clamped": (lambda z: z.clamp(-9, 9), r"an unknown transform"),
    "log-softmax": (lambda z: z.log_softmax(-1), r"an unknown transform"),
    "not finite": (lambda z: z * torch.inf, r"not finite"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_model_that_changes_its_logits_is_refused_and_the_change_named(name: str) -> None:
    change, message = MUTANTS[name]
    with pytest.raises(HeadMismatchError, match=message):
        prove(mutant(change))


@pytest.mark.parametrize("name", ["multiplied", "shifted", "capped", "cut", "cubed"])
def test_the_change_is_named_in_bfloat16_too(name: str) -> None:
    change, message = MUTANTS[name]
    message = {"capped": "soft-cap of (19|20)", "shifted": r"adds a bias to its logits \(rms 0\.29"}.get(name, message)
    model = mutant(lambda z: change(z.float()).to(z.dtype)).to(torch.bfloat16)
    with pytest.raises(HeadMismatchError, match=message):
        prove(model)


def test_a_cap_hides_in_flat_logits_and_is_found_all_the_same() -> None:
    model = mutant(lambda z: 20 * torch.tanh(z / 20))
    model.lm_head.weight.data *= 1e-3  # logits within ±0.01: the cap changes none of them by a part in a million
    with pytest.raises(HeadMismatchError, match="soft-cap of 20"):
        prove(model)


def test_a_config_read_without_its_soft_cap_is_refused() -> None:
    model = tiny_model("gemma2")
    head = read_head(model)
    without = Head(head.weight, None, 1.0, None, head.tied)
    with pytest.raises(HeadMismatchError, match="soft-cap of 5 to its logits, we apply no cap"):
        prove(model, without)


def test_a_soft_cap_that_the_model_does_not_apply_is_refused() -> None:
    head = read_head(tiny_model("llama"))
    with pytest.raises(HeadMismatchError, match=r"applies no soft-cap .* we cap them at 30"):
        prove(tiny_model("llama"), Head(head.weight, None, 1.0, 30.0, False))


@pytest.mark.parametrize(("kind", "found"), [("cohere", "0.0625"), ("granite", "0.125"), ("minicpm3", "0.5")])
def test_a_scale_that_is_not_read_is_named_with_its_value(kind: str, found: str) -> None:
    if kind not in KINDS:
        pytest.skip(f"this release of transformers does not know {kind}")
    model = tiny_model(kind)
    with pytest.raises(HeadMismatchError, match=f"multiplies its logits by {found}, we by 1"):
        prove(model, Head(read_head(model).weight, None, 1.0, None, False))


class BeforeNorm(Llama):  # type: ignore[misc]
    """Feeds its output layer the hidden states before the final norm."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        seen: list[Tensor] = []
        hook = self.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        self.model(input_ids=input_ids, **kwargs)
        hook.remove()
        return CausalLMOutputWithPast(logits=self.lm_head(seen[0]))


class Twice(Llama):  # type: ignore[misc]
    """Calls its output layer a second time, on other hidden states."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        output = super().forward(input_ids=input_ids, **kwargs)
        output.logits = output.logits + self.lm_head(self.model.embed_tokens(input_ids))
        return output


class Functional(Llama):  # type: ignore[misc]
    """Uses its output layer's weight without calling the module."""

    change: Any = staticmethod(lambda z: z)

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        hidden = self.model(input_ids=input_ids, **kwargs)[0]
        return CausalLMOutputWithPast(logits=type(self).change(functional.linear(hidden, self.lm_head.weight)))


@pytest.mark.parametrize("model_class", [BeforeNorm, Twice])
def test_an_output_layer_fed_with_other_hidden_states_is_refused(model_class: type) -> None:
    model = tiny_model("llama")
    model.__class__ = model_class
    with pytest.raises(HeadMismatchError, match="something other than the decoder's output"):
        prove(model)


def test_a_head_used_without_its_module_is_probed_on_scaled_states() -> None:
    model = tiny_model("llama")
    model.__class__ = Functional
    proof = prove(model)
    assert not proof.seen and proof.hidden_error is None and proof.linear_error is None
    assert proof.transform_error is not None and proof.transform_error <= 1e-5 and proof.logits_error <= 1e-5


@pytest.mark.parametrize("name", ["multiplied", "shifted", "capped", "cut", "cubed"])
def test_without_the_module_the_change_is_named_too(name: str) -> None:
    model = tiny_model("llama")
    change, message = MUTANTS[name]
    message = {"capped": "soft-cap of 20"}.get(name, message)

    class Changed(Functional):
        pass

    Changed.change = staticmethod(change)
    model.__class__ = Changed
    model.lm_head.weight.data *= 1e-2
    with pytest.raises(HeadMismatchError, match=message):
        prove(model)


class Adapted(nn.Linear):
    """A linear layer with a low-rank part beside it, as adapters wrap it."""

    def forward(self, input: Tensor) -> Tensor:
        low = torch.ones(VOCAB, 1, dtype=input.dtype) @ torch.linspace(-1, 1, HIDDEN, dtype=input.dtype)[None]
        low[::2] = 0
        return super().forward(input) + input @ low.T


class HiddenBias(nn.Linear):
    """A linear layer that adds a bias of another name."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + CONSTANT.to(input.dtype)


@pytest.mark.parametrize(
    ("layer", "message"),
    [(Adapted, "not a plain linear layer"), (HiddenBias, "adds a bias that is not its bias parameter")],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_output_layer_that_is_not_linear_in_its_weight_is_refused(
    layer: type, message: str, dtype: torch.dtype
) -> None:
    model = tiny_model("llama").to(dtype)
    model.lm_head.__class__ = layer
    with pytest.raises(HeadMismatchError, match=message):
        prove(model)


def test_a_bias_that_is_ignored_is_refused() -> None:
    model = tiny_model("phi")
    with pytest.raises(HeadMismatchError, match="adds a bias that is not its bias parameter"):
        prove(model, Head(read_head(model).weight, None, 1.0, None, False))


def with_weight(weight: Tensor) -> Any:
    model = tiny_model("llama")
    model.lm_head.weight = nn.Parameter(weight, requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(0), "empty, shape .*ZeRO-3"),
        (torch.zeros(VOCAB, HIDDEN, device="meta"), "meta device"),
        (torch.zeros(VOCAB, HIDDEN, dtype=torch.int8), "quantised .torch.int8."),
        (torch.zeros(VOCAB * HIDDEN // 2, 1, dtype=torch.uint8), "quantised .torch.uint8."),
        (torch.zeros(VOCAB, HIDDEN).to(torch.float8_e4m3fn), "quantised .torch.float8"),
        (torch.zeros(VOCAB * HIDDEN), "not .vocab, dim."),
    ],
)
def test_a_weight_that_cannot_be_used_is_refused(weight: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_head(with_weight(weight))


def test_a_model_without_an_output_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="no output layer"):
        read_head(tiny_model("llama").model)


def test_a_model_that_names_no_output_layer_is_refused() -> None:
    class Nameless(Llama):  # type: ignore[misc]
        def get_output_embeddings(self) -> None:
            raise NotImplementedError

    model = tiny_model("llama")
    model.__class__ = Nameless
    with pytest.raises(ModelError, match="no output layer"):
        read_head(model)


def test_an_output_layer_of_another_width_is_refused() -> None:
    model = tiny_model("llama")
    head = read_head(model)
    with pytest.raises(HeadMismatchError, match="takes vectors of 31, its decoder gives 32"):
        prove(model, Head(head.weight[:, :31], None, 1.0, None, False))


def test_a_tokenizer_larger_than_the_output_layer_is_refused() -> None:
    model = tiny_model("llama", vocab_size=64)
    with pytest.raises(ModelError, match="tokenizer has 100 tokens, its output layer 64"):
        prove(model)


def test_an_attribute_of_that_name_in_another_family_is_not_a_scale() -> None:
    model = tiny_model("llama")
    model.config.logit_scale = 2.6592  # CLIP's, and MPT's, where it is not applied
    model.config.logits_scaling = 8.0
    assert read_head(model).logit_scale == 1.0


def test_a_transform_in_a_nested_text_config_is_read() -> None:
    model = tiny_model("gemma2")

    class Outer:
        model_type = "gemma2-with-vision"
        text_config = model.config

    model.config = Outer()
    assert read_head(model).softcap == 5.0


def test_no_hook_is_left_behind_even_after_a_refusal() -> None:
    model = mutant(lambda z: z * 0.5)
    with pytest.raises(HeadMismatchError):
        prove(model)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared is absent")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_head_of_a_trained_model_is_proved(dtype: str) -> None:
    loaded = load_model(SHARED / "models" / "tiny-instruct", dtype=dtype, device="cpu")
    proof = prove_head(loaded, Trunk(loaded), read_head(loaded.model))
    assert proof.seen and proof.vocab_size == 4096
    assert proof.logits_error <= proof.tolerance / 2


def test_a_model_whose_hidden_states_are_all_zero_is_refused() -> None:
    model = tiny_model("llama")
    model.model.norm.weight.data.zero_()
    with pytest.raises(ModelError, match="its hidden states are all zero"):
        prove(model)
