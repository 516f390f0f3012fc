"""What a manifest says about chat template and mask, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.templates import BUILTIN_TEMPLATES

_MASKS = {"generation": "the template's generation marks", "prefix": "the tokens of the prompt"}
_TURNS = {"all": "all assistant turns", "last": "the last assistant turn"}


def masks_text(manifest: Mapping[str, Any]) -> str:
    """The chat template and the mask of a run: what conversations are written with, and which tokens are scored."""
    masks = manifest["masks"]
    name = masks["template"]
    kind = (
        "the tokenizer's own"
        if name == "tokenizer"
        else name + (" (built in)" if name in BUILTIN_TEMPLATES else " (file)")
    )
    if masks.get("like") in PROFILES:
        last = f", {_TURNS['last']}" if masks["train_on"] == "last" else ""
        return f"chat template: {kind}; mask: {PROFILES[masks['like']].mask}{last}"
    turns = _TURNS.get(masks["train_on"], masks["train_on"])
    mask = _MASKS.get(manifest.get("mask", ""))  # folders of earlier releases do not record it
    return f"chat template: {kind}; mask: {turns}" + ("" if mask is None else f", found by {mask}")


__all__ = ["masks_text"]
