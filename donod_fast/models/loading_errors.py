"""Errors of transformers and the hub client while a model is loaded, each explained with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from donod_fast.confidential import without_secrets
from donod_fast.errors import ModelError
from donod_fast.system.wording import shortened

_T = TypeVar("_T")

_UNREACHABLE = ("couldn't connect", "offline", "cached files", "connection error")
"""Messages of transformers and the hub client (in lower case) if there is no network."""


_REASONS = (
    (
        ("trust_remote_code", "custom code"),
        "the model has its own Python code; review it, then allow it with --trust-remote-code (trust_remote_code=True)",
    ),
    (
        # The class and the list of special tokens in a tokenizer_config.json of transformers 5, read by 4.
        ("tokenizersbackend does not exist", "pythonbackend does not exist", "'list' object has no attribute 'keys'"),
        "its tokenizer was written by transformers 5; pip install 'transformers>=5', or take the tokenizer files of "
        "the original release",
    ),
    (
        ("unrecognized configuration class",),
        "transformers knows no causal language model (decoder-only) of this type",
    ),
    (
        ("does not recognize this architecture", "unrecognized model"),
        "this transformers release does not know its type; upgrade transformers",
    ),
    (
        ("gated repo", "401 client error", "403 client error"),
        "access is restricted; accept its terms on the hub and log in with 'hf auth login'",
    ),
    (
        ("not a valid model identifier", "repository not found", "404 client"),
        "there is no such folder and no such model on the hub (for a private model: 'hf auth login')",
    ),
    (("invalid revision", "not a valid git identifier"), "there is no such revision on the hub"),
    (("deserializing header",), "a safetensors file is damaged or cut short; download it again"),
    (
        ("use_safetensors", "with `safetensors`"),
        "only safetensors weights are read; convert the model with save_pretrained()",
    ),
    (("mismatch",), "config.json does not describe these weights; take both from the same checkpoint"),
    (
        ("instantiate the backend tokenizer",),
        "tokenizer files or a package (sentencepiece) are missing; add tokenizer.json",
    ),
)
"""Messages of transformers and the hub client (in lower case), each with our message."""


def attempt_load(name: str, what: str, load: Callable[[], _T]) -> _T:
    """Run one step of loading a model.

    Args:
        name: the model's folder or hub id, for the message.
        what: what the step loads, for the message.
        load: the step.

    Raises:
        ModelError: the step raised any error; the message says what to do.
    """
    try:
        return load()
    except Exception as error:  # transformers, the Hub client and custom code raise many kinds of errors
        raise ModelError(f"{name}: cannot load {what}: {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    text = without_secrets(" ".join(str(error).split()))
    if isinstance(error, torch.OutOfMemoryError):
        return "the device's memory is too small; use a smaller dtype or another device"
    if "device disk is invalid" in text:
        return (
            "this release of transformers cannot put a whole model on disk; give some module a device, or "
            "pip install 'transformers>=5.7'"
        )
    if "safetensor" in type(error).__name__.lower():
        return f"a safetensors file is damaged or cut short; download it again ({text[:200]})"
    if any(hint in text.lower() for hint in _UNREACHABLE):
        from huggingface_hub.constants import HF_HUB_OFFLINE

        cause = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else shortened(_first_cause(error), 200)
        return (
            f"the Hugging Face hub cannot be reached ({cause}) and the model is not in the local cache; "
            "check the name and the network, or give the path of a local model folder"
        )
    for hints, reason in _REASONS:
        if any(hint in text.lower() for hint in hints):
            return f"{reason} ({text[:250]})"
    return f"{type(error).__name__}: {text[:400]}"


def _first_cause(error: BaseException) -> BaseException:
    """The first exception of a chain: the network's own message, without those of the libraries above it."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


__all__ = ["attempt_load"]
