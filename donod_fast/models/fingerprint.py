"""Fingerprints of models: equal for equal weights and config, so that a run cannot resume with another model.

A fingerprint is ``local:``, ``hub:`` or ``memory:`` followed by a SHA-256 in hex. It ignores tokenizer and dtype.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from donod_fast.models.placement import stored_tensor

_MIB = 1 << 20
_VOLATILE = ("_name_or_path", "name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype")
"""Config entries that may differ for the same model."""


def hub_fingerprint(name: str, commit: str) -> str:
    """Fingerprint of a model on the Hub, from its id and commit."""
    return "hub:" + hashlib.sha256(f"{name}@{commit}".encode()).hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """Fingerprint of a folder, from its config and code, and the name, size, first and last MiB of each weight file."""
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
    return "local:" + digest.hexdigest()


def memory_fingerprint(model: Any) -> str:
    """Fingerprint of a model in memory, from its config and the name, shape, dtype and 64 elements of each tensor.

    An off-loaded model has the same fingerprint as one that is completely in memory.
    """
    config = model.config
    settings = config.to_dict() if callable(getattr(config, "to_dict", None)) else vars(config)
    settings = {key: value for key, value in settings.items() if key not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    # Off-loading duplicates a tensor that two modules share; the duplicate is skipped.
    shared = getattr(model, "all_tied_weights_keys", None) or {}
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
