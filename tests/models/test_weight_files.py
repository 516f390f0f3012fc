"""The size of a model's weights, determined without loading them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from donod_fast.models.weight_files import weights_bytes


def files(folder: Path, **sizes: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    for name, size in sizes.items():
        (folder / f"{name}.safetensors").write_bytes(b"0" * size)
    return folder


def test_the_weights_of_a_folder_are_counted_and_nothing_else(tmp_path: Path) -> None:
    folder = files(tmp_path, model=1000)
    (folder / "pytorch_model.bin").write_bytes(b"0" * 77)
    assert weights_bytes(str(folder)) == 1000


def test_of_a_sharded_model_the_files_of_the_index_are_counted(tmp_path: Path) -> None:
    folder = files(tmp_path, first=10, second=20, consolidated=30)
    shards = {"a": "first.safetensors", "b": "second.safetensors", "c": "second.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert weights_bytes(str(folder)) == 30
    (folder / "second.safetensors").unlink()
    assert weights_bytes(str(folder)) is None


def test_a_hub_model_is_looked_up_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--llama"
    files(repository / "snapshots" / commit, model=500)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert weights_bytes("someone/llama") == weights_bytes("someone/llama", commit) == 500
    assert weights_bytes("someone/llama", "other") is None


@pytest.mark.parametrize("name", ["no/such", "not a name!", "", "/no/such/folder"])
def test_a_model_that_is_not_here_has_no_size(name: str) -> None:
    assert weights_bytes(name) is None


def test_a_damaged_index_gives_no_size(tmp_path: Path) -> None:
    (files(tmp_path) / "model.safetensors.index.json").write_text("[")
    assert weights_bytes(str(tmp_path)) is None
