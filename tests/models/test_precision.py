"""Lower precision: which layers are converted, which precisions are refused, and quantised models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from releases import stacks_experts
from score_runs import assert_same_bits, short_rows
from tiny_models import save_tiny, tiny_model, tiny_tokenizer
from torch import Tensor, nn

import donod_fast.models.loading
from donod_fast.errors import InputError, ModelError
from donod_fast.models import precision
from donod_fast.models.loading import load_model, wrap_model
from donod_fast.models.precision import float8_layers, to_float8, why_no_float8
from donod_fast.scores.rows import to_table
from donod_fast.scoring.scorer import Scorer, as_corpus

ROWS = short_rows(40, seed=3)
WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}


def scores(scorer: Scorer) -> Any:
    return to_table(scorer.score_records(list(as_corpus(ROWS).records())))


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Torchao's quantization module, without its refusal of the CPU, whose float8 products torch has."""
    with precision._without_warnings():
        module = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
        api = pytest.importorskip("torchao.quantization.quant_api")
    if not hasattr(api, "_check_hardware_support"):
        pytest.skip("this torchao refuses the CPU in another way")
    monkeypatch.setattr(api, "_check_hardware_support", lambda _: None)
    return module


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision='fp8' is not known; use 'auto', 'float8'"),
        (
            {"precision": "float8"},
            "needs a CUDA device of compute capability 8.9 or more .* this is cpu; use precision=",
        ),
        ({"precision": "float8", "dtype": "float16"}, "starts from bfloat16 weights; remove dtype='float16'"),
    ],
)
def test_an_impossible_precision_is_refused_before_anything_is_loaded(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model("there/is-no-such-model", device="cpu", **options)


@pytest.mark.parametrize(
    ("capability", "reason"),
    [((8, 0), "and NVIDIA A100 has 8.0"), ((8, 6), "has 8.6"), ((8, 9), None), ((9, 0), None), ((10, 0), None)],
)
def test_devices_before_ada_have_no_float8(
    capability: tuple[int, int], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    found = why_no_float8(torch.device("cuda", 0))
    assert found is None if reason is None else found is not None and reason in found


def test_without_torchao_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(precision, "import_module", missing)
    monkeypatch.setattr(precision, "why_no_float8", lambda device: None)
    with pytest.raises(InputError, match=r"needs a recent torchao: pip install 'donod-fast\[float8\]'"):
        precision.refuse_precision("float8", "auto", torch.device("cuda"))


# --- which layers ------------------------------------------------------------------------------------


def layer_names(model: Any) -> list[str]:
    return [name for name, _ in float8_layers(model.model, model.lm_head)]


def test_float8_is_for_every_linear_layer_of_the_decoder_and_no_other() -> None:
    names = layer_names(tiny_model("llama"))
    inside = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert [name.rpartition(".")[2] for name in names] == 2 * list(inside)
    assert len(layer_names(tiny_model("llama-tied"))) == 14


def test_unsuitable_layers_are_not_converted_to_float8() -> None:
    assert not {name for name in layer_names(tiny_model("llama", intermediate_size=40)) if "mlp" in name}

    class Other(nn.Linear):
        pass

    model = tiny_model("llama")
    model.model.layers[0].self_attn.q_proj.__class__ = Other
    model.model.layers[0].self_attn.v_proj.weight.data[3] = 0.0
    model.model.layers[1].gate = nn.Linear(32, 16)
    model.model.head = model.lm_head  # shared by reference, vocabulary 101
    model.lm_head.weight.data = torch.ones(96, 32)
    left = {"layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj", "layers.1.gate", "head"}
    names = set(layer_names(model))
    assert len(names) == 12 and not names & left


def stand_in(module: nn.Module, chosen: Any) -> None:
    """As torchao's ``quantize_``: replaces the weights of the chosen layers, in place."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and chosen(layer, name):
            layer.weight = nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gemma2", "phi"])
def test_conversion_touches_the_trunks_linear_weights_alone(kind: str) -> None:
    model, before = tiny_model(kind).to(torch.bfloat16), tiny_model(kind).to(torch.bfloat16)
    assert to_float8("m", model.model, model.lm_head, stand_in).startswith("float8 rowwise dynamic")
    lowered = {name for name, weight in model.named_parameters() if weight.dtype == torch.float8_e4m3fn}
    assert lowered == {f"model.{name}.weight" for name in layer_names(before)}
    for name, weight in model.named_parameters():
        if name not in lowered:
            assert torch.equal(weight, before.get_parameter(name))


def test_a_conversion_that_fails_or_leaves_layers_out_is_an_error() -> None:
    def broken(module: nn.Module, chosen: Any) -> None:
        raise AssertionError("no such kernel")

    def lazy(module: nn.Module, chosen: Any) -> None:
        stand_in(module, lambda layer, name: chosen(layer, name) and not name.endswith("k_proj"))

    for quantise, message in (
        (broken, "cannot convert the model to float8: no such kernel"),
        (lazy, "left layers.0.*k_proj"),
    ):
        model = tiny_model("llama").to(torch.bfloat16)
        with pytest.raises(ModelError, match=message):
            to_float8("m", model.model, model.lm_head, quantise)
    with pytest.raises(ModelError, match="no linear layer is suitable for float8"):
        to_float8("m", nn.Sequential(nn.Linear(30, 30)), None, stand_in)
    with pytest.raises(ModelError, match=r"float8 needs a CUDA device .* this is cpu \(layers.0"):
        model = tiny_model("llama").to(torch.bfloat16)
        to_float8("m", model.model, model.lm_head)


@pytest.mark.skipif(not stacks_experts(), reason="the experts of this release are nn.Linear")
def test_a_trunk_that_is_mostly_something_else_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model("mixtral").to(torch.bfloat16)  # its experts are stacked, not nn.Linear
    with caplog.at_level(logging.WARNING, logger="donod_fast.models.precision"):
        to_float8("m", model.model, model.lm_head, stand_in)
    assert "of the trunk's weights are in layers that support float8" in caplog.text


# --- torchao's float8, on the CPU --------------------------------------------------------------------


def rounded(rows: Tensor) -> Tensor:
    """(n, d) bfloat16 as float8 keeps it with one (bfloat16) scale a row, in float64."""
    scale = (rows.abs().amax(1, keepdim=True) / 448).float()
    return (rows.float() / scale).to(torch.float8_e4m3fn).double() * scale.double()


def test_a_float8_layer_is_the_product_of_rows_rounded_to_float8(torchao: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(64, 48, bias=False)).to(torch.bfloat16).requires_grad_(False)
    tokens, weight = torch.randn(20, 64).to(torch.bfloat16), layer[0].weight
    to_float8("m", layer, None, precision.torchao_float8())
    with torch.inference_mode():
        found = layer(tokens).double()
    expected = rounded(tokens) @ rounded(weight).T
    assert float((found - expected).norm() / expected.norm()) < 4e-3  # it is bfloat16
    exact = tokens.double() @ weight.double().T
    assert float((found - exact).norm() / exact.norm()) > 1e-2  # and float8 it was


def test_a_token_of_zeros_stays_zeros_and_harms_no_other(torchao: Any) -> None:
    model = tiny_model("llama", **WIDE).to(torch.bfloat16).requires_grad_(False)
    model.model.embed_tokens.weight[0] = 0.0  # the padding token's, as nn.Embedding makes it
    to_float8("m", model.model, model.lm_head, precision.torchao_float8())
    with torch.inference_mode():
        hidden = model.model(torch.tensor([[7, 8, 9, 0, 0]]), use_cache=False).last_hidden_state
    assert bool(hidden.isfinite().all())


def test_a_model_in_float8_is_proved_scored_and_named(
    torchao: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_tiny("llama", tmp_path, **WIDE)
    made = precision.torchao_float8()
    monkeypatch.setattr(donod_fast.models.loading, "refuse_precision", lambda *arguments: None)
    monkeypatch.setattr(
        donod_fast.models.loading, "to_float8", lambda name, decoder, head: to_float8(name, decoder, head, made)
    )
    low = Scorer(load_model(saved, device="cpu", precision="float8"))
    assert low.loaded.precision.startswith("float8 rowwise dynamic (torchao ")
    assert (low.loaded.dtype, low.loaded.quantised) == (torch.bfloat16, True)
    plain = Scorer(load_model(saved, device="cpu", dtype="bfloat16"))
    assert (plain.loaded.precision, plain.loaded.quantised) == ("bfloat16", False)
    assert torch.equal(low.head.weight, plain.head.weight)
    first, second = scores(plain).to_pandas(), scores(low).to_pandas()
    assert (first.status == second.status).all()
    scored = first.status == "scored"
    error = ((second.loss - first.loss) / first.loss)[scored].abs()
    assert 1e-3 < error.median() < 0.1  # another precision, the same model
    assert_same_bits(scores(low), scores(low))


# --- models that come quantised ----------------------------------------------------------------------


def test_scores_of_an_int8_model_are_those_of_its_rounded_weights(torchao: Any) -> None:
    model = tiny_model("llama", **WIDE)
    torchao.quantize_(model.model, torchao.Int8WeightOnlyConfig(version=2))
    truth = tiny_model("llama", **WIDE)
    for name, layer in truth.model.named_modules():
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(model.model.get_submodule(name).weight.dequantize())
    scorer, plain = Scorer(model, tiny_tokenizer()), Scorer(truth, tiny_tokenizer())
    assert scorer.loaded.precision.startswith("torchao Int8Tensor (torchao ") and scorer.loaded.quantised
    found, expected = scores(scorer).to_pandas(), scores(plain).to_pandas()
    assert ((found.nod - expected.nod).abs() / expected.nod).max() < 1e-4
    assert ((found.don - expected.don).abs() / expected.nod).max() < 1e-4


def test_a_quantised_checkpoint_is_loaded_as_it_comes(torchao: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from transformers import AutoModelForCausalLM, TorchAoConfig

    saved = save_tiny("llama", tmp_path / "plain", **WIDE)
    made = AutoModelForCausalLM.from_pretrained(
        saved,
        quantization_config=TorchAoConfig(torchao.Int8WeightOnlyConfig(version=2)),
        dtype=torch.bfloat16,
        device_map="cpu",
    )
    made.save_pretrained(tmp_path / "int8")
    tiny_tokenizer().save_pretrained(tmp_path / "int8")
    loaded = load_model(tmp_path / "int8", device="cpu")
    assert loaded.precision.startswith("torchao Int8WeightOnlyConfig (torchao ")
    assert (loaded.dtype, loaded.quantised) == (torch.bfloat16, True)
    assert_same_bits(scores(Scorer(loaded)), scores(Scorer(made, tiny_tokenizer())))


def test_a_quantised_checkpoint_needs_accelerate_and_its_own_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr("transformers.utils.is_accelerate_available", lambda: False)
    with pytest.raises(ModelError, match=r"a quantised model needs accelerate: pip install 'donod-fast\[accelerate"):
        load_model(tmp_path, device="cpu")
    monkeypatch.setattr(donod_fast.models.loading, "refuse_precision", lambda *arguments: None)
    with pytest.raises(InputError, match="is already quantised; precision='float8' is for models that are not"):
        load_model(tmp_path, device="cpu", precision="float8")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_bitsandbytes_model_is_scored_whatever_its_dtype(bits: int, dtype: torch.dtype, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4, bnb_4bit_quant_type="nf4")
    saved = save_tiny("llama", tmp_path, **WIDE)
    model = AutoModelForCausalLM.from_pretrained(
        saved, quantization_config=settings, dtype=dtype, device_map={"": "cpu"}
    )
    scorer = Scorer(model, tiny_tokenizer())
    assert scorer.loaded.precision.startswith(f"bitsandbytes {'int8' if bits == 8 else 'nf4'} (bitsandbytes ")
    found = scores(scorer).to_pandas()
    expected = scores(Scorer(load_model(saved, device="cpu"))).to_pandas()
    assert (found.status == expected.status).all()
    assert ((found.nod - expected.nod).abs() / expected.nod).median() < (0.05 if bits == 8 else 0.3)


def test_a_quantised_output_layer_is_refused_with_the_remedy(torchao: Any) -> None:
    model = tiny_model("llama", **WIDE)
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig(version=2))
    with pytest.raises(ModelError, match=r"output layer is quantised \(torchao Int8Tensor\); load it with its output"):
        Scorer(model, tiny_tokenizer())


def test_quantised_models_are_told_apart_by_their_scales_too(torchao: Any) -> None:
    def fingerprint(factor: float = 1.0) -> str:
        model = tiny_model("llama", **WIDE)
        model.model.layers[0].mlp.up_proj.weight.data *= factor  # the same int8 values, twice the scale
        torchao.quantize_(model.model, torchao.Int8WeightOnlyConfig(version=2))
        return wrap_model(model, tiny_tokenizer()).fingerprint

    assert fingerprint() == fingerprint() != fingerprint(2.0)


def test_weights_that_are_buffers_count_in_the_fingerprint() -> None:
    def fingerprint(value: int) -> str:
        model = tiny_model("llama")
        model.model.layers[0].register_buffer("qweight", torch.full((8, 8), value, dtype=torch.int32))  # as GPTQ's
        return wrap_model(model, tiny_tokenizer()).fingerprint

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "awq 4 bits"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes int8"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4Config"}}}, "torchao Int4Config"),
        ({}, "quantised"),
    ],
)
def test_the_label_says_how_a_model_is_quantised(config: dict[str, Any], label: str) -> None:
    model = tiny_model("llama")
    assert precision.quantisation(model) is None
    model.config.quantization_config = config
    assert (precision.quantisation(model) or "").partition(" (")[0] == label
