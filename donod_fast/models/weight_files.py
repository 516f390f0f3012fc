"""Size of a model's weights, determined without loading them."""

from __future__ import annotations

import json
from pathlib import Path

from donod_fast.models.packaged import converted_folder
from donod_fast.system.places import path_of

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"


def weights_bytes(name: str, revision: str | None = None) -> int | None:
    """Bytes of the safetensors files of a model, in its folder or in the local cache of the Hugging Face hub.

    Args:
        name: a folder or a hub id.
        revision: revision of a hub model.

    Returns:
        The total size of the files that are loaded; None if they are not on this machine. Raises nothing.
    """
    try:
        folder = converted_folder(name) or path_of(name)
        found = folder if folder.is_dir() else _cached_folder(name, revision)
        return None if found is None else _folder_bytes(found)
    except (OSError, ValueError, KeyError, TypeError):  # the loader reports what is wrong with the files
        return None


def _cached_folder(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def _folder_bytes(folder: Path) -> int | None:
    """Size of the files in the index, else of the single file, else of all files, in transformers' order of search."""
    if (folder / WEIGHTS).is_file():
        files = [folder / WEIGHTS]
    elif (folder / INDEX).is_file():
        listed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = [folder / file for file in sorted(set(listed.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files or not all(file.is_file() for file in files):
        return None
    return sum(file.stat().st_size for file in files)


__all__ = ["weights_bytes"]
