"""Loading: a model is loaded completely and unchanged, or refused with a remedy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny, tiny_model, tiny_tokenizer
from transformers import LlamaForSequenceClassification, T5Config, T5ForConditionalGeneration, ViTConfig

from donod_fast.errors import InputError, ModelError
from donod_fast.models.loading import LoadedModel, load_model, wrap_model

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, saved; tests that change it make a copy."""
    return save_tiny("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "llama"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "cache"), raising=False)


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder: Path, change: Any) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def refused(folder: Path | str, message: str, **options: Any) -> str:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder, device="cpu", **options)
    assert str(folder) in str(caught.value)  # every refusal names the model
    return str(caught.value)


def test_a_folder_is_loaded_in_float32_and_eval_mode_on_the_cpu(saved: Path) -> None:
    loaded = load_model(saved, device="cpu")
    assert (loaded.dtype, loaded.device, loaded.max_length) == (torch.float32, torch.device("cpu"), 128)
    assert (loaded.name, loaded.revision) == (str(saved), None)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert len(loaded.tokenizer) == 100 and loaded.tokenizer.chat_template
    for name, parameter in tiny_model("llama").named_parameters():
        assert torch.equal(parameter, loaded.model.get_parameter(name))


def test_auto_is_float32_on_the_cpu_even_for_a_half_precision_checkpoint(tmp_path: Path) -> None:
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load_model(tmp_path, device="cpu").dtype == torch.float32
    assert load_model(tmp_path, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_asked_for_by_name_is_the_one_of_every_parameter(saved: Path, dtype: str) -> None:
    loaded = load_model(saved, device="cpu", dtype=dtype)
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)} == {loaded.dtype}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8' is not known; use 'auto', 'float32'"),
        ({"device": "gpu"}, "device='gpu' is not a device"),
        (
            {"device": "cuda:99"},
            "device='cuda:99': (this PyTorch build has no CUDA support|no CUDA device is visible|PyTorch sees)",
        ),
        ({"device": "meta"}, "holds no weights"),
        ({"device": "cpu", "revision": "main"}, "revision='main' is for models of the hub"),
    ],
)
def test_an_option_that_cannot_be_is_an_input_error(saved: Path, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(saved, **options)


def test_loading_says_nothing_and_restores_the_verbosity(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(saved, device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


# --- fingerprints ------------------------------------------------------------------------------------


def test_a_folder_keeps_its_fingerprint_wherever_it_lies(saved: Path, copy: Path) -> None:
    first = load_model(saved, device="cpu").fingerprint
    assert re.fullmatch("local:[0-9a-f]{64}:[0-9a-f]{64}", first)
    assert first == load_model(copy, device="cpu", dtype="bfloat16").fingerprint


def test_another_weight_or_setting_is_another_fingerprint(saved: Path, copy: Path) -> None:
    seen = {load_model(saved, device="cpu").fingerprint}
    edit_config(copy, rms_norm_eps=1e-5)
    seen.add(load_model(copy, device="cpu").fingerprint)
    edit_weights(copy, lambda weights: weights["lm_head.weight"].mul_(1.5))
    seen.add(load_model(copy, device="cpu").fingerprint)
    assert len(seen) == 3


def test_a_model_in_memory_has_a_fingerprint_of_its_config_and_weights() -> None:
    tokenizer = tiny_tokenizer()
    first, again = (wrap_model(tiny_model("llama"), tokenizer) for _ in range(2))
    other = wrap_model(tiny_model("llama", seed=1), tokenizer)
    config = wrap_model(tiny_model("llama", rope_theta=500.0), tokenizer)
    assert re.fullmatch("memory:[0-9a-f]{64}", first.fingerprint)
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other.fingerprint, config.fingerprint}) == 3


# --- wrapping ----------------------------------------------------------------------------------------


def test_wrapping_sets_eval_mode_and_leaves_the_rest_as_it_was() -> None:
    model = tiny_model("llama").to(torch.bfloat16).train()
    loaded = wrap_model(model, tiny_tokenizer())
    assert isinstance(loaded, LoadedModel) and loaded.model is model and not model.training
    assert (loaded.dtype, loaded.name, loaded.max_length) == (torch.bfloat16, "LlamaForCausalLM", 128)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_wrapping_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="a Linear has no config"):
        wrap_model(torch.nn.Linear(2, 2), tiny_tokenizer())
    with pytest.raises(ModelError, match="the model needs a tokenizer"):
        wrap_model(tiny_model("llama"), None)


@pytest.mark.parametrize(
    ("positions", "tokenizer_limit", "expected"),
    [(128, 10**30, 128), (128, 64, 64), (64, 128, 64), (10**10, 10**30, None), (10**10, 256, 256)],
)
def test_the_longest_sequence_is_the_smaller_sane_limit(
    positions: int, tokenizer_limit: int, expected: int | None
) -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    model.config.max_position_embeddings = positions
    tokenizer.model_max_length = tokenizer_limit
    assert wrap_model(model, tokenizer).max_length == expected


def test_the_limit_of_gpt2_is_read_under_its_own_name() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 10**30
    assert wrap_model(tiny_model("gpt2", max_position_embeddings=77), tokenizer).max_length == 77


# --- refusals: places --------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "there is no such folder")
    refused("./nowhere", "there is no such folder")
    refused("a/b/c", "there is no such folder")


def test_a_file_or_nothing_is_refused(saved: Path) -> None:
    refused(saved / "model.safetensors", "give the folder that holds config.json")
    with pytest.raises(ModelError, match="is not a model"):
        load_model("", device="cpu")


def test_a_hub_id_without_a_network_is_refused(offline: None) -> None:
    refused(
        "someone/no-such-model",
        r"hub cannot be reached \(HF_HUB_OFFLINE is set\) and the model is not in the local cache",
    )


def test_a_cached_hub_model_is_loaded_with_its_commit(
    saved: Path, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = Path(constants.HF_HUB_CACHE) / "models--someone--llama"
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    loaded = load_model("someone/llama", device="cpu")
    assert (loaded.name, loaded.revision) == ("someone/llama", commit)
    assert re.fullmatch("hub:[0-9a-f]{64}", loaded.fingerprint)
    assert load_model("someone/llama", revision=commit, device="cpu").fingerprint == loaded.fingerprint
    refused("someone/llama", "cannot load its config", revision="another")


# --- refusals: what a folder holds -------------------------------------------------------------------


def test_a_folder_without_config_is_refused(copy: Path) -> None:
    (copy / "config.json").unlink()
    refused(copy, "there is no config.json in this folder")


def test_a_broken_config_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "llama", ')
    refused(copy, "config.json cannot be read")


def test_an_unknown_model_type_is_refused(copy: Path) -> None:
    edit_config(copy, model_type="llama-from-the-future")
    refused(copy, "does not know its type; upgrade transformers")


def test_a_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    refused(copy, "there are no \\*.safetensors weights")


def test_a_checkpoint_of_pickled_weights_is_refused_and_not_opened(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    refused(copy, r"the weights are in pytorch_model.bin, but only safetensors files are read .* save_pretrained\(\)")


def test_pickled_weights_next_to_other_safetensors_are_not_read(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    refused(copy, "cannot load its weights")


@pytest.mark.parametrize("size", [0, 7, 500, -100])
def test_a_weight_file_cut_short_is_refused(copy: Path, size: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(copy, "damaged or cut short; download it again")


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    load_model(tmp_path, device="cpu")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    refused(tmp_path, "cannot load its weights")


def test_a_missing_output_layer_is_refused_and_not_initialised(copy: Path) -> None:
    edit_weights(copy, lambda weights: weights.pop("lm_head.weight"))
    refused(copy, "the checkpoint lacks lm_head.weight, which would be random")


def test_a_missing_output_layer_of_a_tied_model_is_no_loss(tmp_path: Path) -> None:
    save_tiny("llama-tied", tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    model = load_model(tmp_path, device="cpu").model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_missing_layers_are_refused_and_counted(copy: Path) -> None:
    edit_config(copy, num_hidden_layers=3)
    refused(copy, "the checkpoint lacks model.layers.2.* and 5 more")


def test_weights_of_other_shapes_are_refused(copy: Path) -> None:
    edit_config(copy, vocab_size=90)
    refused(copy, "config.json does not describe these weights")


def test_a_folder_without_tokenizer_is_refused(copy: Path) -> None:
    for file in [*copy.glob("token*"), *copy.glob("chat_template*")]:
        file.unlink()
    refused(copy, "tokenizer")


def test_an_adapter_is_refused(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    refused(copy, "holds an adapter .* merge it first")


def test_code_that_comes_with_a_model_runs_only_when_allowed(copy: Path) -> None:
    mark = copy / "it-ran"
    (copy / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    edit_config(
        copy,
        model_type="own",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    refused(copy, "has its own Python code; review it, then allow it with --trust-remote-code")
    assert not mark.exists()


# --- refusals: other kinds of models -----------------------------------------------------------------


def test_an_encoder_decoder_model_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=101, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    refused(tmp_path, "is an encoder-decoder model")
    with pytest.raises(ModelError, match="is an encoder-decoder model"):
        wrap_model(model, tiny_tokenizer())


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    model = LlamaForSequenceClassification(tiny_model("llama").config)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    refused(tmp_path, "is a LlamaForSequenceClassification, not a causal language model")


def test_a_model_that_is_no_language_model_is_refused(copy: Path) -> None:
    ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(copy)
    refused(copy, "transformers knows no causal language model")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared is absent")
def test_the_trained_model_is_loaded() -> None:
    loaded = load_model(SHARED / "models" / "tiny-instruct", device="cpu")
    assert (loaded.dtype, loaded.max_length) == (torch.float32, 1024)
    assert loaded.model.get_output_embeddings().weight.shape == (4096, 256)


def test_a_soft_cap_of_attention_is_applied_in_every_release(tmp_path: Path) -> None:
    # A cap so narrow that leaving it out shows; transformers 5.17 runs such a model under sdpa, which has none.
    path = save_tiny("gemma2", tmp_path / "gemma2", attn_logit_softcapping=0.05)
    tokens = torch.arange(6, 26)[None]
    truth = tiny_model("gemma2", attn_logit_softcapping=0.05)
    truth.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = truth(input_ids=tokens, use_cache=False).logits
        found = load_model(path, device="cpu").model(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(found, wanted)
