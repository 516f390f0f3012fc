"""A host's model is checked before its weights are loaded, and other weights are another model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from host_cases import MODEL

from donod_fast.adapters import model_check
from donod_fast.adapters.model_check import model_identity
from donod_fast.adapters.options import scorer_spec
from donod_fast.errors import ModelError


def identity(folder: Path) -> str:
    return model_identity(scorer_spec(str(folder)))


def test_every_byte_of_the_model_and_every_release_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(MODEL, one)
    shutil.copytree(MODEL, other)
    seen = {identity(one)}
    assert identity(other) in seen  # where it lies does not count
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    seen.add(identity(other))
    template = one / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    seen.add(identity(one))
    monkeypatch.setattr(model_check, "__version__", "0.0.0")
    seen.add(identity(one))
    assert len(seen) == 4


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json", None])
def test_what_is_no_model_is_refused_without_its_weights(tmp_path: Path, lost: str | None) -> None:
    folder = tmp_path / "model"
    if lost is not None:
        shutil.copytree(MODEL, folder)
        (folder / lost).unlink()
    with pytest.raises(ModelError, match="model"):
        identity(folder)
