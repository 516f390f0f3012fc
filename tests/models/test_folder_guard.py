"""Hostile model folders: nothing outside the folder is read unnoticed, and no code of a model runs unasked."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_counts import Attacks
from releases import opens_old_tokenizer_paths
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny

from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.errors import DonodError, InputError, ModelError
from donod_fast.models.fingerprint import BackgroundFingerprint, folder_fingerprint
from donod_fast.models.loading import load_model, load_tokenizer
from donod_fast.models.settings import ModelSource
from donod_fast.studies.damoc.guard import BertScoreGuard
from donod_fast.system.fingerprints import is_same_model
from donod_fast.training.counting import count_tokens
from donod_fast.training.loading import load_for_training, model_identity
from donod_fast.training.model_size import model_config
from donod_fast.training.recipe import TrainSettings

Loader = Callable[[Path], Any]


def embedded(folder: Path) -> Any:
    from donod_fast.models.sentence_embeddings import load_embedder

    return load_embedder(folder, device="cpu")


CAUSAL: dict[str, Loader] = {
    "score": lambda folder: load_model(folder, device="cpu"),
    "tokenizer": lambda folder: load_tokenizer(ModelSource(str(folder))),
    "train": lambda folder: load_for_training(TrainSettings(model=str(folder))),
    "plan": lambda folder: model_config(str(folder)),
    "identity": lambda folder: model_identity(TrainSettings(model=str(folder))),
    "guard": lambda folder: BertScoreGuard(folder, device="cpu"),
    "embed": embedded,
}
"""The ways that a folder of a language model is read."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that code of a model writes. Python finds the code that lies in the folder, as under ``python -m``."""
    file = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(file))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    from transformers.integrations import hub_kernels

    def fetched(*given: Any, **more: Any) -> Any:
        file.write_text(f"kernels {given}")
        raise ImportError("no kernel")

    monkeypatch.setattr(hub_kernels, "get_kernel", fetched, raising=False)  # transformers 4 has no name of its own
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda *_: True, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "importable"))
    (tmp_path / "importable").mkdir()
    yield file
    for name in ("canary_code", "modeling_canary"):
        sys.modules.pop(name, None)


CODE = """
import os
with open(os.environ["CANARY"], "a") as file:
    file.write(__name__)
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "songbird"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokens(PreTrainedTokenizerFast):
    pass
class Module(torch.nn.Identity):
    pass
def generate(model, **given):
    return None
"""


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def with_code(folder: Path) -> None:
    for name in ("canary_code.py", "modeling_canary.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE)
    (folder.parent / "importable" / "canary_code.py").write_text(CODE)


AUTO_MAP = {
    "AutoConfig": "modeling_canary.Config",
    "AutoModel": "modeling_canary.Model",
    "AutoModelForCausalLM": "modeling_canary.Model",
    "AutoTokenizer": ["modeling_canary.Tokens", "modeling_canary.Tokens"],
}
KERNEL = "somebody/attention"
CODES: dict[str, tuple[str, dict[str, Any]]] = {
    "auto_map of an unknown type": ("config.json", {"auto_map": AUTO_MAP, "model_type": "songbird"}),
    "auto_map of a known type": ("config.json", {"auto_map": AUTO_MAP}),
    "auto_map of another repository": (
        "config.json",
        {"auto_map": {key: f"x/y--{one}" for key, one in AUTO_MAP.items() if isinstance(one, str)}, "model_type": "c"},
    ),
    "auto_map of the tokenizer": ("tokenizer_config.json", {"auto_map": AUTO_MAP, "tokenizer_class": "Tokens"}),
    "legacy auto_map of the tokenizer": ("tokenizer_config.json", {"auto_map": AUTO_MAP["AutoTokenizer"]}),
    "auto_map of the processor": ("processor_config.json", {"auto_map": {"AutoProcessor": "modeling_canary.Tokens"}}),
    "attention of the hub": ("config.json", {"attn_implementation": KERNEL}),
    "attention of the hub, by its version": ("config.json", {"attn_implementation": f"{KERNEL}@main:forward"}),
    "attention of the hub, as saved": ("config.json", {"_attn_implementation": KERNEL}),
    "attention of the hub, internal": ("config.json", {"_attn_implementation_internal": KERNEL}),
    "attention of the hub, paged": ("config.json", {"attn_implementation": f"paged|{KERNEL}"}),
    "attention of the hub, by parts": ("config.json", {"attn_implementation": {"": KERNEL, "text_config": KERNEL}}),
    "attention of the hub, by a community": ("config.json", {"attn_implementation": "kernels-community/flash-attn3"}),
    "trust in the config": ("config.json", {"trust_remote_code": True, "auto_map": AUTO_MAP, "model_type": "songbird"}),
    "trust in the tokenizer": (
        "tokenizer_config.json",
        {"trust_remote_code": True, "auto_map": AUTO_MAP, "tokenizer_class": "Tokens"},
    ),
    "generation of its own": ("generation_config.json", {"custom_generate": "."}),
    "quantizer of its own": ("config.json", {"quantization_config": {"quant_method": "canary_code.Module"}}),
}
"""Files with an entry that names code."""


@pytest.mark.attack
@pytest.mark.parametrize("way", list(CAUSAL))
def test_no_code_of_a_model_runs_unasked(
    way: str, attacks: Attacks, whole: Path, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "embed":
        pytest.importorskip("sentence_transformers", reason="the extra `criteria` is not installed")
    through = []
    for number, (kind, (file, entries)) in enumerate(CODES.items()):
        folder = Path(shutil.copytree(whole, tmp_path / f"{number}" / "model"))
        (folder.parent / "importable").mkdir()
        with_code(folder)
        edit(folder / file, lambda content, entries=entries: content.update(entries))
        try:
            CAUSAL[way](folder)
        except DonodError as error:
            assert str(folder) in str(error) or "canary" in str(error)
        if canary.exists():
            through.append(f"{kind}: {canary.read_text()}")
            canary.unlink()
    attacks.count("model folders", f"code of the folder, {way}", tried=len(CODES), got_through=len(through))
    assert not through


def sentence_model(minilm: Path, folder: Path) -> Path:
    shutil.copytree(minilm, folder)
    (folder.parent / "importable").mkdir(exist_ok=True)
    with_code(folder)
    return folder


def modules(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        content = json.loads((folder / "modules.json").read_text())
        change(content)
        (folder / "modules.json").write_text(json.dumps(content))

    return made


def module(kind: str, config: dict[str, Any] | None = None, name: str = "config.json") -> Callable[[Path], None]:
    """A further module of the model, with a config of its own."""

    def made(folder: Path) -> None:
        (folder / "3_More").mkdir()
        (folder / "3_More" / name).write_text(json.dumps(config or {}))
        modules(lambda listed: listed.append({"idx": 3, "name": "3", "path": "3_More", "type": kind}))(folder)

    return made


DENSE = {"in_features": 384, "out_features": 384, "bias": True}
SENTENCE_CODES: dict[str, Callable[[Path], None]] = {
    "a module of the folder": module("canary_code.Module"),
    "a module of the folder, by its file": module("modeling_canary.Module"),
    "the first module": modules(lambda listed: listed[0].update(type="canary_code.Module")),
    "a module without a path": modules(lambda listed: listed[1].update(type="canary_code.Module", path="")),
    "an activation": module(
        "sentence_transformers.models.Dense", {**DENSE, "activation_function": "canary_code.Module"}
    ),
    "a route": module(
        "sentence_transformers.models.Router",
        {"types": {"q": "canary_code.Module"}, "structure": {"query": ["q"]}, "parameters": {}},
        "router_config.json",
    ),
    "attention of the hub": lambda folder: edit(
        folder / "sentence_bert_config.json",
        lambda content: content.update(model_args={"attn_implementation": KERNEL}),
    ),
    "auto_map": lambda folder: edit(
        folder / "config.json", lambda content: content.update(auto_map=AUTO_MAP, model_type="songbird")
    ),
    "trust": lambda folder: edit(
        folder / "sentence_bert_config.json",
        lambda content: content.update(model_args={"trust_remote_code": True, "auto_map": AUTO_MAP}),
    ),
}


@pytest.mark.attack
def test_no_code_of_a_sentence_model_runs_unasked(attacks: Attacks, minilm: Path, tmp_path: Path, canary: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `criteria` is not installed")
    through, silent = [], []
    for number, (kind, spoil) in enumerate(SENTENCE_CODES.items()):
        folder = sentence_model(minilm, tmp_path / str(number) / "model")
        spoil(folder)
        try:
            embedded(folder)
            silent.append(kind)
        except ModelError:
            pass
        if canary.exists():
            through.append(kind)
            canary.unlink()
        shutil.rmtree(folder)
    attacks.count(
        "model folders",
        "code of a sentence model",
        tried=len(SENTENCE_CODES),
        got_through=len({*through, *silent} - {"trust"}),
    )
    assert not through
    assert set(silent) <= {"trust"}  # without a type of its own, nothing needs the map


def sharded(folder: Path, shard: str, where: Path) -> None:
    """Turn the weights into one file that an index names, wherever it lies."""
    (where.parent).mkdir(parents=True, exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    save_file(weights, where, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    if not any(folder.glob("*.safetensors")):
        save_file({"unused": torch.zeros(1)}, folder / "other.safetensors", metadata={"format": "pt"})
    listed = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def absolute(folder: Path) -> Path:
    outside = folder.parent / "outside" / "w.safetensors"
    sharded(folder, str(outside), outside)
    return outside


def above(folder: Path) -> Path:
    sharded(folder, "../outside/w.safetensors", folder.parent / "outside" / "w.safetensors")
    return folder.parent / "outside" / "w.safetensors"


def around(folder: Path) -> Path:
    sharded(folder, "sub/../../outside/w.safetensors", folder.parent / "outside" / "w.safetensors")
    (folder / "sub").mkdir()
    return folder.parent / "outside" / "w.safetensors"


def linked_folder(folder: Path) -> Path:
    sharded(folder, "sub/w.safetensors", folder.parent / "outside" / "w.safetensors")
    (folder / "sub").symlink_to(folder.parent / "outside", target_is_directory=True)
    return folder.parent / "outside" / "w.safetensors"


def linked_shard(folder: Path) -> Path:
    outside = folder.parent / "outside" / "w.safetensors"
    sharded(folder, "w.safetensors", outside)
    (folder / "w.safetensors").symlink_to(outside)
    return outside


def linked_weights(folder: Path) -> Path:
    outside = folder.parent / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    return outside


def linked_twice(folder: Path) -> Path:
    outside = linked_weights(folder)
    (folder / "model.safetensors").unlink()
    (folder.parent / "between").symlink_to(outside)
    (folder / "model.safetensors").symlink_to(folder.parent / "between")
    return outside


def within(folder: Path) -> Path:
    sharded(folder, "sub/w.safetensors", folder / "sub" / "w.safetensors")
    return folder / "sub" / "w.safetensors"


def named_weights(folder: Path) -> Path:
    outside = folder.parent / "named.safetensors"
    shutil.copy(folder / "model.safetensors", outside)
    edit(folder / "config.json", lambda content: content.update(transformers_weights="../named.safetensors"))
    return outside


LEADING = (
    *(absolute, above, around, linked_folder, linked_shard, linked_weights, linked_twice, within, named_weights),
)


def change_inside(file: Path) -> None:
    """Change one byte in the middle of a file, and keep its size and its time."""
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.attack
def test_weights_outside_the_folder_are_refused_or_fingerprinted(attacks: Attacks, whole: Path, tmp_path: Path) -> None:
    through, refused = [], []
    for lead in LEADING:
        folder = Path(shutil.copytree(whole, tmp_path / lead.__name__ / "model"))
        outside = lead(folder)
        try:
            before = load_model(folder, device="cpu").fingerprint
        except ModelError as error:
            assert "leads outside the folder" in str(error), error
            refused.append(lead)
            continue
        change_inside(outside)
        if load_model(folder, device="cpu").fingerprint == before:
            through.append(lead.__name__)
    attacks.count("model folders", "weights outside the folder", tried=len(LEADING), got_through=len(through))
    assert not through
    assert refused == [absolute, above, around, named_weights]


@pytest.mark.attack
def test_each_byte_that_is_loaded_is_in_the_fingerprint(attacks: Attacks, whole: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    large = torch.randn(1_500_000, generator=torch.Generator().manual_seed(0))
    save_file({**load_file(folder / "model.safetensors"), "more": large}, folder / "model.safetensors")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    (folder / "vocab.txt").write_text("a b c")
    (folder / "generation_config.json").write_text("{}")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    before, number, unseen = folder_fingerprint(folder), attacks.number(40, 1_000), []
    for at in range(number):
        file = files[at % len(files)]
        content, stat = file.read_bytes(), file.stat()
        place = draw.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :])
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if folder_fingerprint(folder) == before:
            unseen.append(f"{file.name}, byte {place}")
        file.write_bytes(content)
    attacks.count("model folders", "a bit of a file that is loaded", tried=number, got_through=len(unseen))
    assert not unseen
    assert folder_fingerprint(folder) == before


PLACED: dict[str, tuple[str, dict[str, Any]]] = {
    "tokenizer file": ("tokenizer_config.json", {"tokenizer_file": "{outside}/tokenizer.json"}),
    "vocabulary": ("tokenizer_config.json", {"vocab_file": "{outside}/tokenizer.json"}),
    "versions of the tokenizer": (
        "tokenizer_config.json",
        {"fast_tokenizer_files": ["../outside/tokenizer.4.0.0.json", "tokenizer.json"]},
    ),
    "quantised weights": ("config.json", {"quantization_config": {"quant_method": "gptq", "path": "../outside"}}),
    "an adapter": ("adapter_config.json", {"base_model_name_or_path": "{outside}", "peft_type": "LORA"}),
}


@pytest.mark.attack
@pytest.mark.parametrize("way", ["score", "tokenizer", "train", "guard", "embed"])
def test_no_other_file_of_the_machine_is_named(way: str, attacks: Attacks, whole: Path, tmp_path: Path) -> None:
    if way == "embed":
        pytest.importorskip("sentence_transformers", reason="the extra `criteria` is not installed")
    through = []
    for number, (kind, (file, entries)) in enumerate(PLACED.items()):
        folder = Path(shutil.copytree(whole, tmp_path / str(number) / "model"))
        outside = Path(shutil.copytree(whole, tmp_path / str(number) / "outside"))
        shutil.copy(outside / "tokenizer.json", outside / "tokenizer.4.0.0.json")
        text = json.dumps(entries).replace("{outside}", str(outside))
        edit(folder / file, lambda content, text=text: content.update(json.loads(text)))
        try:
            CAUSAL[way](folder)
            through.append(kind)
        except (ModelError, InputError):
            pass
    attacks.count("model folders", f"a file outside, {way}", tried=len(PLACED), got_through=len(through))
    assert not through


def test_the_cache_of_the_hub_is_loaded_as_it_is(whole: Path, tmp_path: Path) -> None:
    """There, each file is a link into a folder of blobs beside the snapshots."""
    root = tmp_path / "models--owner--name"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for number, file in enumerate(sorted(whole.iterdir())):
        shutil.copy(file, root / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    assert load_model(snapshot, device="cpu").fingerprint == load_model(whole, device="cpu").fingerprint


@pytest.mark.skipif(opens_old_tokenizer_paths(), reason="this release itself opens the path, and says so")
def test_old_paths_in_a_tokenizer_config_are_no_error(folder: Path) -> None:
    """Many public models hold paths of the machine where they were saved."""
    old = {"tokenizer_file": "/root/gone/tokenizer.json", "special_tokens_map_file": "/root/gone/map.json", "x_file": 1}
    edit(folder / "tokenizer_config.json", lambda content: content.update(old))
    assert load_model(folder, device="cpu").max_length == 128


def test_a_damaged_index_or_config_is_a_model_error(folder: Path) -> None:
    for content in ("[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "[" * 100_000, "\x00"):
        (folder / "model.safetensors.index.json").write_text(content)
        with pytest.raises(ModelError):
            load_model(folder, device="cpu")


def test_trusted_code_is_allowed(folder: Path, canary: Path) -> None:
    (folder / "modeling_canary.py").write_text(CODE)
    edit(folder / "config.json", lambda content: content.update(auto_map=AUTO_MAP, model_type="songbird"))
    with pytest.raises(ModelError, match="--trust-remote-code"):
        load_model(folder, device="cpu")
    assert not canary.exists()
    assert load_model(folder, device="cpu", trust_remote_code=True).model is not None
    assert canary.exists()


def test_a_recipe_names_no_attention_of_the_hub(folder: Path) -> None:
    with pytest.raises(ModelError, match="names code on the hub"):
        load_for_training(TrainSettings(model=str(folder), attention="somebody/attention"))


def test_the_tokens_of_a_plan_are_counted_by_a_checked_folder(folder: Path) -> None:
    config = model_config(str(folder))
    edit(folder / "config.json", lambda content: content.update(attn_implementation=KERNEL))
    with pytest.raises(ModelError, match="names code on the hub"):
        count_tokens(TrainSettings(model=str(folder)), config, None)  # type: ignore[arg-type]


def test_weights_that_change_while_they_are_loaded_are_refused(folder: Path) -> None:
    hashing = BackgroundFingerprint(folder)
    hashing.result()
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "more": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="written to while it was loaded"):
        hashing.result()


def test_the_formula_of_earlier_releases_is_part_of_the_fingerprint() -> None:
    """The folder in ``tests/scores/data`` was written by release 0.1.0 with this model."""
    kept = Path(__file__).parents[1] / "scores" / "data" / "release-0.1.0" / "scores" / "manifest.json"
    old = json.loads(kept.read_text(encoding="utf-8"))["model"]["fingerprint"]
    found = folder_fingerprint(MODEL_FOLDER)
    assert found != old and found.startswith(f"{old}:") and is_same_model(old, found)
