"""Fingerprints of models: equal for equal weights and config, so that a run cannot resume with another model.

A fingerprint is ``local:``, ``hub:`` or ``memory:`` followed by one or two SHA-256 in hex. It ignores the dtype.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from donod_fast.errors import ModelError
from donod_fast.models.placement import stored_tensor
from donod_fast.system.file_hashes import sha256_of
from donod_fast.system.fingerprints import LOCAL

_MIB = 1 << 20
_KINDS = (
    *("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "**/*.py"),
    "*chat_templates/*.jinja",
)
"""Files that transformers reads of a model."""

_NOT_READ = ("trainer_state.json", "all_results.json", "train_results.json", "eval_results.json", "README.txt")
"""Files of these kinds that describe a training."""

_VOLATILE = ("_name_or_path", "name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype")
"""Config entries that may differ for the same model."""


def hub_fingerprint(name: str, commit: str) -> str:
    """Fingerprint of a model on the Hub, from its id and commit."""
    return "hub:" + hashlib.sha256(f"{name}@{commit}".encode()).hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """Fingerprint of a folder, ``local:OLD:NEW``.

    NEW covers every byte that is read of the model: weights, also those that an index names in other folders, configs,
    tokenizer, chat templates and Python files. Links are followed. OLD is the formula of earlier releases; see
    :func:`donod_fast.system.fingerprints.is_same_model`.

    Raises:
        ModelError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in sorted(_model_files(folder)):
            digest.update(f"{file}\0".encode("utf-8", "surrogateescape") + bytes.fromhex(sha256_of(folder / file)))
        return f"{LOCAL}:{_earlier_fingerprint(folder)}:{digest.hexdigest()}"
    except OSError as error:
        file_name = error.filename or folder
        raise ModelError(f"{folder}: {file_name} cannot be read ({error.strerror or error})") from error


def _model_files(folder: Path) -> set[str]:
    """Files of a model, relative to its folder."""
    found = {str(file.relative_to(folder)) for kind in _KINDS for file in folder.glob(kind) if file.is_file()}
    for index in folder.glob("*.index.json"):
        with suppress(ValueError, AttributeError, RecursionError):  # what is wrong with it is said when it is loaded
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            found |= {name for name in listed if isinstance(name, str) and (folder / name).is_file()}
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
            found |= {str(file.relative_to(folder)) for file in (folder / module["path"]).glob("*") if file.is_file()}
    return {file for file in found if file not in _NOT_READ}


def _earlier_fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob("*.py"))]:
        digest.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_MIB))
            stream.seek(max(0, size - _MIB))
            digest.update(stream.read(_MIB))
    return digest.hexdigest()


class BackgroundFingerprint:
    """The fingerprint of a folder, computed while its weights are loaded; hashing leaves the interpreter free."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = self._stats()
        self._pool = ThreadPoolExecutor(1, "fingerprint")
        self._found = self._pool.submit(folder_fingerprint, folder)
        self._pool.shutdown(wait=False)

    def result(self) -> str:
        """Wait for the fingerprint.

        Raises:
            ModelError: a file cannot be read, or has changed since, so that other bytes may have been loaded.
        """
        found = self._found.result()
        if self._stats() != self._before:
            raise ModelError(f"{self._folder}: the folder was written to while it was loaded; run the command again")
        return found

    def _stats(self) -> list[tuple[str, int, int, int, int]]:
        stats = []
        with suppress(OSError):
            for file in sorted(_model_files(self._folder)):
                stat = (self._folder / file).stat()
                # The time of change too: the other one can be set.
                stats.append((file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
        return stats


def memory_fingerprint(model: Any) -> str:
    """Fingerprint of a model in memory, from its config and the name, shape, dtype and 64 elements of each tensor.

    An off-loaded model has the same fingerprint as one that is completely in memory.
    """
    config = model.config
    settings = config.to_dict() if callable(getattr(config, "to_dict", None)) else vars(config)
    settings = {key: value for key, value in settings.items() if key not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    # Off-loading duplicates a tensor that two modules share; the duplicate is skipped.
    shared = getattr(model, "all_tied_weights_keys", None)
    if shared is None:  # transformers 4: names of the class, whether or not this model ties them
        tied_here = getattr(config, "tie_word_embeddings", False)
        shared = (getattr(model, "_tied_weights_keys", None) or ()) if tied_here else ()
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta" and name in shared:
            continue
        _add(digest, name, stored_tensor(model, name, parameter))
    # Scales of quantised weights, and quantised weights that are not parameters.
    tied = set(dict(model.named_parameters(remove_duplicate=False)))
    for name, tensor in model.state_dict().items():
        if name not in tied and isinstance(tensor, Tensor):
            _add(digest, name, stored_tensor(model, name, tensor))
    return "memory:" + digest.hexdigest()


def _add(digest: Any, name: str, tensor: Tensor) -> None:
    if hasattr(tensor, "__tensor_flatten__") and not hasattr(tensor, "full_tensor"):  # torchao: made of other tensors
        for part in tensor.__tensor_flatten__()[0]:
            _add(digest, f"{name}.{part}", getattr(tensor, part))
        return
    digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
    if tensor.numel() and tensor.device.type != "meta":
        flat = tensor.detach().reshape(-1)
        # Elements from the whole tensor: a fine-tuned copy differs nearly everywhere.
        digest.update(flat[:: max(1, flat.numel() // 64)].float().cpu().numpy().tobytes())
