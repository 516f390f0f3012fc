"""A pipe, a socket or a device in a model's folder is refused before anything opens it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from donod_fast.errors import ModelError
from donod_fast.models.folder_guard import check_model_folder


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors", "modules.json", "x"])
@pytest.mark.parametrize("target", [None, "/dev/zero", "/dev/null"])
def test_what_is_no_file_in_a_models_folder_is_refused(tmp_path: Path, name: str, target: str | None) -> None:
    (tmp_path / "config.json").write_text("{}")
    check_model_folder("m", tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    if target is None:
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(target)
    with pytest.raises(ModelError, match=f"{name} is a pipe, a socket or a device"):
        check_model_folder("m", tmp_path)
